"""Products on a GPU against float64 on the same GPU."""

import itertools

import pytest
import torch

from detector.ops.occupancy import Occupancy
from detector.ops.sparse_conv import gathered, sparse_conv
from detector.ops.sparse_conv.divisions import MEASURED, SHARED, Division, Ring
from tests.oracles.sparse_scenes import random_coordinates

pytestmark = pytest.mark.gpu

TOLERANCE = {torch.float16: 1e-3, torch.bfloat16: 8e-3, torch.float32: 2e-6, torch.float64: 1e-12}
"""Relative; half the spacing of numbers times the rounding of inputs and result. float32 without
TF32."""
CHANNELS = [(4, 16), (5, 16), (16, 32), (32, 64), (64, 64), (128, 128), (27, 27), (3, 5), (130, 17)]


@pytest.fixture(autouse=True)
def no_tf32(monkeypatch):
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


def scene(density=0.2, shape=(6, 40, 70), batch_size=2, empty_frames=()):
    coordinates = random_coordinates(shape, batch_size, density, 0, empty_frames)
    return Occupancy.of_any(coordinates.cuda(), shape, batch_size)


def relative(found, true):
    return float((found.detach().double() - true).norm() / true.norm().clamp(min=1e-30))


def check(kernel_map, c_in, c_out, dtype):
    size = kernel_map.kernel_size
    x = torch.randn(kernel_map.rows_in, c_in, device="cuda").to(dtype).requires_grad_()
    weight = torch.randn(*size, c_in, c_out, device="cuda") / (27 * c_in) ** 0.5
    weight = weight.to(dtype).requires_grad_()
    bias = torch.randn(c_out, device="cuda").to(dtype).requires_grad_()
    out = sparse_conv(x, weight, kernel_map, bias)
    gradient = torch.randn_like(out)
    out.backward(gradient)
    x64, w64 = x.detach().double(), weight.detach().double().flatten(0, 2)
    table, back = kernel_map.table, kernel_map.transposed().table
    limit = TOLERANCE[dtype]
    assert out.dtype == dtype
    true = gathered.convolve(x64, w64, table) + bias.detach().double()
    assert relative(out, true) < limit
    true = gathered.convolve(gradient.double(), w64.transpose(1, 2), back)
    assert relative(x.grad, true) < limit
    true = gathered.weight_gradient(x64, gradient.double(), table)
    assert relative(weight.grad.flatten(0, 2), true) < limit
    assert relative(bias.grad, gradient.double().sum(0)) < limit


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("c_in", "c_out"), CHANNELS)
def test_values_and_gradients(dtype, c_in, c_out):
    occupancy = scene()
    check(occupancy.neighbours(3), c_in, c_out, dtype)
    check(occupancy.downsample(3, 2, 1)[1], c_in, c_out, dtype)


@pytest.mark.parametrize("size", [1, 2, 4, 5, (3, 1, 1), (1, 5, 3)])
@pytest.mark.parametrize("dilation", [1, 2])
def test_kernel_sizes_and_dilation(size, dilation):
    for dtype in (torch.float16, torch.float32):
        check(scene().neighbours(size, dilation), 16, 32, dtype)


@pytest.mark.parametrize("rows", [1, 2, 15, 31, 32, 33, 63, 64, 65, 127, 129])
def test_edges_of_tiles(rows):
    coordinates = torch.zeros(rows, 4, dtype=torch.int32)
    coordinates[:, 3] = torch.arange(rows)
    occupancy = Occupancy.of_any(coordinates.cuda(), (1, 1, 200), 1)
    for c_in, c_out in ((4, 16), (16, 16), (64, 64), (128, 64)):
        check(occupancy.neighbours(3), c_in, c_out, torch.float16)


def test_nothing_in_nothing_out():
    occupancy = Occupancy.of_any(torch.zeros(0, 4, dtype=torch.int32).cuda(), (4, 4, 4), 1)
    for dtype in TOLERANCE:
        x = torch.zeros(0, 16, device="cuda", dtype=dtype, requires_grad=True)
        weight = torch.ones(3, 3, 3, 16, 32, device="cuda", dtype=dtype, requires_grad=True)
        out = sparse_conv(x, weight, occupancy.neighbours(3))
        assert out.shape == (0, 32)
        out.sum().backward()
        assert not weight.grad.any()


def test_gradients_by_differences():
    occupancy = scene(shape=(2, 3, 5), batch_size=1)
    x = torch.randn(len(occupancy), 3, device="cuda", dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 3, 3, 3, 2, device="cuda", dtype=torch.float64, requires_grad=True)
    for kernel_map in (occupancy.neighbours(3), occupancy.downsample(3, 2, 1)[1]):
        def run(a, b, m=kernel_map):
            return sparse_conv(a, b, m)

        assert torch.autograd.gradcheck(run, (x, weight))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_the_same_every_time(dtype):
    occupancy = scene(0.3)
    x = torch.randn(len(occupancy), 32, device="cuda", dtype=dtype, requires_grad=True)
    weight = torch.randn(3, 3, 3, 32, 64, device="cuda", dtype=dtype, requires_grad=True)
    results = []
    for _ in range(3):
        x.grad = weight.grad = None
        out = sparse_conv(x, weight, occupancy.neighbours(3))
        out.square().mean().backward()
        results.append((out.detach(), x.grad, weight.grad))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


def test_autocast_computes_in_its_dtype_and_gives_gradients_in_the_parameters():
    occupancy = scene()
    x = torch.randn(len(occupancy), 16, device="cuda", requires_grad=True)
    weight = torch.randn(3, 3, 3, 16, 16, device="cuda", requires_grad=True)
    for dtype in (torch.float16, torch.bfloat16):
        with torch.autocast("cuda", dtype):
            out = sparse_conv(x, weight, occupancy.neighbours(3))
        assert out.dtype == dtype
        out.float().mean().backward()
        assert x.grad.dtype == weight.grad.dtype == torch.float32


def test_three_hundred_thousand_voxels():
    shape = (41, 400, 400)
    coordinates = torch.stack([torch.randint(0, n, (300_000,)) for n in (1, *shape)], 1).int()
    occupancy = Occupancy.of_any(coordinates.cuda(), shape, 1)
    for c_in, c_out in ((16, 16), (64, 64)):
        check(occupancy.neighbours(3), c_in, c_out, torch.float16)


@pytest.mark.parametrize("tile", [16, 32, 64])
def test_every_way_to_divide_the_work_gives_the_same_sums(tile):
    from detector.ops.occupancy.tables import tile_masks
    from detector.ops.sparse_conv import tensor_cores

    occupancy = scene(0.3)
    table = occupancy.neighbours(3).table
    rows = table.shape[1]
    x = torch.randn(rows, 64, device="cuda").half()
    weight = torch.randn(27, 64, 64, device="cuda") / 40
    true = gathered.convolve(x.double(), weight.half().double(), table)
    count = torch.tensor([rows], dtype=torch.int32, device="cuda")
    for tile_rows, dealt, depth in itertools.product((16, 32, 64), (False, True), (2, 3, 4)):
        if tile == 64 and tile_rows == 64:
            continue  # too many registers
        division = Division(tile_rows, 8, depth, dealt=dealt)
        kernels = tensor_cores.convolution(torch.half, 64, 64, 27, 0, tile, division)
        packed = kernels.packed(weight)
        for _ in range(2):  # the kernel leaves its counters as they were
            out = torch.full_like(x, torch.nan)
            kernels(x, packed, table, tile_masks(table), count, rows, out)
            assert relative(out, true) < 1e-3


@pytest.mark.parametrize(("c_in", "c_out", "tile", "offsets", "warps", "depth"), [
    (128, 128, 128, 27, 8, 2), (128, 128, 128, 27, 12, 2), (128, 128, 64, 27, 12, 2),
    (64, 128, 128, 27, 12, 2), (64, 64, 64, 125, 16, 2), (32, 32, 32, 27, 8, 3),
    (16, 16, 16, 27, 4, 4), (8, 32, 32, 27, 8, 2), (4, 16, 16, 27, 4, 3), (128, 128, 64, 3, 8, 3),
])  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_warpgroups(c_in, c_out, tile, offsets, warps, depth, dtype):
    """Hopper's kernel with all that follows; tiles that see nothing, rows it may not write."""
    from detector.ops.occupancy.tables import tile_masks
    from detector.ops.sparse_conv import tensor_cores

    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs a Hopper GPU")
    torch.manual_seed(0)
    size = {3: (3, 1, 1), 27: 3, 125: 5}[offsets]
    whole = scene(0.3).neighbours(size).table
    for count in (1, 63, 64, 65, whole.shape[1]):
        table = whole[:, :count].clone()
        table[:, 130:300] = -1
        x = torch.randn(whole.shape[1], c_in, device="cuda").to(dtype)
        weight = torch.randn(offsets, c_in, c_out, device="cuda") / (offsets * c_in) ** 0.5
        bias = torch.randn(c_out, device="cuda")
        residual = torch.randn(count, c_out, device="cuda").to(dtype)
        on_gpu = torch.tensor([count], dtype=torch.int32, device="cuda")
        ring = Ring(warps, depth)
        kernels = tensor_cores.convolution(dtype, c_in, c_out, offsets, 0, tile, ring)
        packed = kernels.packed(weight)
        true = gathered.convolve(x.double(), weight.to(dtype).double(), table)
        true = (true + bias.double() + residual.double()).relu()
        for _ in range(2):
            out = torch.full((count + 70, c_out), torch.nan, device="cuda", dtype=dtype)
            kernels(
                x, packed, table, tile_masks(table), on_gpu, count + 70, out, bias=bias,
                residual=residual, relu=True,
            )  # fmt: skip
            assert relative(out[:count], true) < TOLERANCE[dtype], count
            assert out[count:].isnan().all()


@pytest.mark.parametrize(("c_in", "c_out", "offsets", "split", "tile_rows", "warps", "depth"), [
    (64, 64, 27, 2, 16, 16, 2), (64, 64, 27, 3, 16, 12, 3), (64, 64, 27, 4, 32, 8, 2),
    (16, 16, 27, 2, 32, 16, 3), (4, 16, 27, 3, 64, 15, 2), (8, 32, 75, 3, 16, 12, 2),
    (128, 128, 27, 2, 32, 16, 2), (128, 64, 3, 4, 16, 8, 3), (32, 32, 1, 2, 32, 8, 2),
])  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("blocks", [2, None])
def test_warps_that_share_tiles(
    c_in, c_out, offsets, split, tile_rows, warps, depth, dtype, blocks, monkeypatch
):
    """The same sums, always in the same sequence; few blocks have several tiles in turn."""
    from detector.ops.occupancy.tables import conv_table
    from detector.ops.sparse_conv import tensor_cores

    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)
    if blocks:
        monkeypatch.setattr(tensor_cores, "multiprocessors", lambda _: blocks)
    wide = 2 if dtype == torch.float32 else 1
    tile = tensor_cores._tile(wide * c_in, c_out, offsets, 0)
    if tile is None or tile_rows * tile > 2048:
        pytest.skip("needs more shared memory or registers")
    torch.manual_seed(0)
    kernel = {75: (3, 5, 5), 27: 3, 3: (3, 1, 1), 1: 1}[offsets]
    whole = scene(0.3, (8, 60, 90)).neighbours(kernel).table
    division = Division(tile_rows, warps, depth, split=split)
    kernels = tensor_cores.convolution(dtype, c_in, c_out, offsets, 0, tile, division)
    weight = torch.randn(offsets, c_in, c_out, device="cuda") / (offsets * c_in) ** 0.5
    packed, bias = kernels.packed(weight), torch.randn(c_out, device="cuda")
    x = torch.randn(whole.shape[1], c_in, device="cuda").to(dtype)
    for count in (0, 1, 17, 64, 65, 1025, whole.shape[1]):
        table = whole[:, : max(count, 1)].clone()
        table[:, 130:300] = -1
        on_gpu = torch.tensor([count], dtype=torch.int32, device="cuda")
        residual = torch.randn(count, c_out, device="cuda").to(dtype)
        true = gathered.convolve(x.double(), weight.to(dtype).double(), table)[:count]
        true = (true + bias.double() + residual.double()).relu()
        for in_order in (False, True) if offsets == 27 and count else (False,):
            read = conv_table(table, on_gpu, in_order=in_order)
            first = None
            for after in (None, "features", "table"):
                out = torch.full((count + 70, c_out), torch.nan, device="cuda", dtype=dtype)
                kernels(
                    x, packed, read.table, read.masks, on_gpu, max(count, 1), out,
                    order=read.order, tiles=read.tiles, bias=bias, residual=residual, relu=True,
                    after=after,
                )  # fmt: skip
                assert out[count:].isnan().all()
                if count:
                    assert relative(out[:count], true) < max(TOLERANCE[dtype], 1e-3)
                first = out if first is None else first
                assert torch.equal(out[:count], first[:count])


@pytest.mark.parametrize("division", [
    Division(16, 12), Division(32, 8, dealt=True), Division(16, 12, 3), Ring(),
    Division(16, 12, 4, listed=True), Division(32, 8, 3, dealt=True),
])  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_tables_in_order(division, dtype):
    """Every kernel writes the rows that the order names, whichever way tiles are taken in turn."""
    from detector.ops.occupancy.tables import conv_table
    from detector.ops.sparse_conv import tensor_cores

    if isinstance(division, Ring) and torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs a Hopper GPU")
    torch.manual_seed(0)
    whole = scene(0.3).neighbours(3).table
    for count in (1, 63, 64, 65, 1025, whole.shape[1]):
        table = whole[:, :count].clone()
        table[:, 130:300] = -1
        x = torch.randn(whole.shape[1], 64, device="cuda").to(dtype)
        weight, bias = torch.randn(27, 64, 64, device="cuda") / 40, torch.randn(64, device="cuda")
        residual = torch.randn(count, 64, device="cuda").to(dtype)
        on_gpu = torch.tensor([count], dtype=torch.int32, device="cuda")
        true = gathered.convolve(x.double(), weight.to(dtype).double(), table)
        true = (true + bias.double() + residual.double()).relu()
        ordered = conv_table(table, on_gpu, in_order=True)
        assert torch.equal(ordered.table[:, :count], table[:, ordered.order.long()])
        for tiles in (None, ordered.tiles):
            kernels = tensor_cores.convolution(dtype, 64, 64, 27, 0, 64, division)
            packed = kernels.packed(weight)
            for _ in range(2):
                out = torch.full((count + 70, 64), torch.nan, device="cuda", dtype=dtype)
                kernels(
                    x, packed, ordered.table, ordered.masks, on_gpu, count, out,
                    order=ordered.order, tiles=tiles, bias=bias, residual=residual, relu=True,
                )  # fmt: skip
                assert relative(out[:count], true) < TOLERANCE[dtype], count
                assert out[count:].isnan().all()


@pytest.mark.parametrize(("shape", "division"), sorted(
    {(shape, d) for shape, lines in [*MEASURED.items(), *SHARED.items()]
     for _, *divisions in lines for d in divisions},
    key=str,
))  # fmt: skip
def test_measured_divisions(shape, division):
    """With all that follows a convolution, by a table as it is and in order."""
    from detector.ops.occupancy.tables import conv_table
    from detector.ops.sparse_conv import tensor_cores

    c_in, c_out, tile = shape
    if isinstance(division, Ring) and torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs a Hopper GPU")
    sizes = {27: 3, 3: (3, 1, 1)}
    fitting = [k for k in sizes if tensor_cores._tile(c_in, c_out, k, 0) == tile]
    if not fitting:
        pytest.skip("needs more shared memory")
    offsets = fitting[0]
    if isinstance(division, Ring):
        tile = c_out
    torch.manual_seed(0)
    table = scene(0.3, (8, 60, 90)).neighbours(sizes[offsets]).table
    rows = table.shape[1]
    x = torch.randn(rows, c_in, device="cuda").half()
    weight = torch.randn(offsets, c_in, c_out, device="cuda") / (offsets * c_in) ** 0.5
    bias = torch.randn(c_out, device="cuda")
    residual = torch.randn(rows, c_out, device="cuda").half()
    count = torch.tensor([rows], dtype=torch.int32, device="cuda")
    true = gathered.convolve(x.double(), weight.half().double(), table) + bias.double()
    kernels = tensor_cores.convolution(torch.half, c_in, c_out, offsets, 0, tile, division)
    packed = kernels.packed(weight)
    for in_order in (False, True):
        read = conv_table(table, count, in_order=in_order)
        for summand in (None, residual):
            out = torch.full((rows, c_out), torch.nan, device="cuda").half()
            kernels(
                x, packed, read.table, read.masks, count, rows, out, order=read.order,
                tiles=read.tiles, bias=bias, residual=summand, relu=True,
            )  # fmt: skip
            all_of_it = true if summand is None else true + summand.double()
            assert relative(out, all_of_it.relu()) < TOLERANCE[torch.float16]


@pytest.mark.parametrize(("c_in", "c_out", "density"), [
    (64, 64, 0.3), (64, 64, 0.02), (16, 16, 0.3), (128, 128, 0.5),
])  # fmt: skip
def test_a_convolution_waits_for_its_weights(c_in, c_out, density):
    """It may start while they are packed; weights change unseen, too, as through `.data`."""
    from detector.ops.occupancy.tables import conv_table
    from detector.ops.sparse_conv import tensor_cores

    kernel_map = scene(density, (8, 60, 90)).neighbours(3)
    rows = kernel_map.table.shape[1]
    x = torch.randn(rows, c_in, device="cuda").half()
    weight = torch.nn.Parameter(torch.randn(3, 3, 3, c_in, c_out, device="cuda").half() / 40)
    given = torch.randn(20, *weight.shape, device="cuda").half() / 40
    kernels = tensor_cores.best_convolution(torch.half, c_in, c_out, 27, 0, rows)
    count = torch.tensor([rows], dtype=torch.int32, device="cuda")
    read = conv_table(kernel_map.table, count)
    found = []
    with torch.no_grad():
        for new in given:
            weight.data.copy_(new)
            found.append(sparse_conv(x, weight, kernel_map))
    for new, out in zip(given, found, strict=True):
        packed = kernels.packed(new.flatten(0, 2))
        torch.cuda.synchronize()
        alone = torch.empty_like(out)
        kernels(x, packed, read.table, read.masks, count, rows, alone)
        assert torch.equal(out, alone)


@pytest.mark.parametrize(("c_in", "c_out"), [*CHANNELS, (4, 3), (8, 128), (16, 16), (32, 32)])
def test_tf32_on_tensor_cores(monkeypatch, c_in, c_out):
    """TF32 has 10 bits of fraction, as float16; what is cut off the features is not rounded."""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)
    monkeypatch.setitem(TOLERANCE, torch.float32, 1.5e-3)
    for kernel_map in (scene(0.3).neighbours(3), scene().downsample(3, 2, 1)[1]):
        check(kernel_map, c_in, c_out, torch.float32)
    check(scene(0.3).neighbours((3, 1, 1)), c_in, c_out, torch.float32)
    check(scene(0.3).neighbours((1, 5, 3), 2), c_in, c_out, torch.float32)


def test_a_layer_that_does_not_learn_is_the_same_by_a_table_in_order(monkeypatch):
    from detector.ops.sparse_conv import tensor_cores

    monkeypatch.setattr(tensor_cores, "gains_by_order", lambda *_: True)
    for c_in, c_out in ((16, 16), (32, 64), (64, 64), (128, 128)):
        for kernel_map in (scene(0.3).neighbours(3), scene(0.3).downsample(3, 2, 1)[1]):
            x = torch.randn(kernel_map.rows_in, c_in, device="cuda").half()
            weight = torch.randn(3, 3, 3, c_in, c_out, device="cuda").half() / 40
            weight.requires_grad_()
            with torch.no_grad():
                out = sparse_conv(x, weight, kernel_map)
            assert kernel_map.table.in_order.order is not None
            true = gathered.convolve(
                x.double(), weight.detach().double().flatten(0, 2), kernel_map.table
            )
            assert relative(out, true) < TOLERANCE[torch.float16]


def test_a_thread_may_start_with_our_kernels():
    """A new thread, as autograd's, has no CUDA context of its own yet."""
    import threading

    from detector.ops.sparse_conv import tensor_cores

    kernels = tensor_cores.best_convolution(torch.half, 16, 16, 27, 0, 100)
    weight = torch.randn(27, 16, 16, device="cuda")
    true, found = kernels.packed(weight), []
    thread = threading.Thread(target=lambda: found.append(kernels.packed(weight)))
    thread.start()
    thread.join()
    assert torch.equal(found[0], true)
