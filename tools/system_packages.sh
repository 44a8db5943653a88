#!/bin/sh
# Installs the system packages that Python's venv and Open3D need, where this is Debian/Ubuntu and
# we may; otherwise says in one line what to install. Never fails: all but Open3D works without.
#   sh tools/system_packages.sh [PYTHON]
python=${1:-python3}
packages="libegl1 libgl1 libusb-1.0-0 libgomp1"
command -v dpkg-query >/dev/null 2>&1 || {
    echo "Open3D needs EGL, OpenGL and libusb; on Debian these are: $packages"; exit 0; }
# Debian splits ensurepip off, without which no environment can be made.
"$python" -c "import ensurepip" 2>/dev/null || packages="$packages python3-venv"
missing=""
for package in $packages; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q "install ok" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ]; then as_root=""
elif sudo -n true 2>/dev/null; then as_root="sudo -n"
else echo "Some system packages are missing; run: sudo apt-get install$missing"; exit 0; fi
echo "Installing system packages:$missing"
{ $as_root apt-get update -qq &&
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $missing >/dev/null; } ||
    echo "That did not work; run: sudo apt-get install$missing"
exit 0
