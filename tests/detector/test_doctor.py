import re

import pytest

from detector import doctor
from detector.doctor import Finding, State, examine, usable
from detector.errors import InputError


@pytest.fixture
def no_open3d(monkeypatch):
    """Leaves out the off-screen window, which takes a second."""
    monkeypatch.setattr("detector.viz.offscreen.check", lambda: None)


def states(findings, word):
    return {finding.state for finding in findings if word in finding.sentence}


def test_here_everything_needed_is_found_and_runs(no_open3d):
    findings = examine()
    assert usable(findings)
    assert states(findings, "torch ") == {State.OK}
    assert states(findings, "Engine: 'native' would be used") == {State.OK}
    assert any(finding.sentence.startswith("Device: ") for finding in findings)
    for finding in findings:
        assert re.fullmatch(r".+\.", finding.sentence), finding.sentence


def test_a_missing_package_is_broken_and_says_how_to_install_it(monkeypatch, no_open3d):
    monkeypatch.setattr(doctor, "REQUIRED", [("absent", "absent", "1.0", "nothing")])
    findings = examine()
    assert not usable(findings)
    assert states(findings, "absent (nothing) is not installed; run `make install`, or pip") == {
        State.BROKEN
    }


def test_an_old_package_is_broken(monkeypatch, no_open3d):
    monkeypatch.setattr(doctor, "REQUIRED", [("numpy", "numpy", "99.1", "arrays")])
    assert states(examine(), "is too old; run pip install 'numpy>=99.1'") == {State.BROKEN}


def test_a_package_that_does_not_import_is_broken(monkeypatch, no_open3d, tmp_path):
    (tmp_path / "torn.py").write_text("raise OSError('libtorn.so: file too short')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(doctor, "REQUIRED", [("torn", "numpy", "1", "nothing")])
    assert states(examine(), "(OSError: libtorn.so: file too short); install it again") == {
        State.BROKEN
    }


def test_without_open3d_the_rest_can_be_used(monkeypatch):
    def fail():
        raise InputError("Open3D can't be loaded (libEGL.so.1); run: apt-get install libegl1")

    monkeypatch.setattr("detector.viz.offscreen.check", fail)
    findings = examine()
    assert usable(findings)
    assert states(findings, "apt-get install libegl1") == {State.LIMITED}


def test_a_sparse_engine_that_fails_is_broken(monkeypatch, no_open3d):
    monkeypatch.setattr("detector.sparse.SubMConv3d.forward", lambda *_: 1 / 0)
    findings = examine()
    assert not usable(findings)
    assert states(findings, "failed (ZeroDivisionError") == {State.BROKEN}


def test_optional_packages_do_not_matter(monkeypatch, no_open3d):
    monkeypatch.setattr(doctor, "OPTIONAL", [("absent", "absent", "for nothing", "pip install a")])
    findings = examine()
    assert usable(findings)
    assert states(findings, "absent is not installed; it is optional, for nothing: pip") == {
        State.OPTIONAL
    }


def test_usable_means_nothing_is_broken():
    assert usable([Finding(State.LIMITED, "a."), Finding(State.OPTIONAL, "b.")])
    assert not usable([Finding(State.OK, "a."), Finding(State.BROKEN, "b.")])
