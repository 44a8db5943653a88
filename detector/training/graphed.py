"""What comes behind the sparse backbone, losses and gradients included, as two CUDA graphs.

From the backbone's map on, no shape depends on the points: the dense convolutions, the targets and
the losses are some 700 small launches forward and backward, which take a host longer to hand out
than a GPU to run. Replayed, they are two.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from detector.models.targets import TrueBoxes

BOXES_PER_FRAME = 64
"""Room for boxes at first; it doubles where that is too few. How many a batch has doesn't count, so
that a run that goes on from a checkpoint sums over as many rows as one that never stopped."""
WARM_UPS = 3


class GraphedDenseLoss:
    """A detector's `dense_loss`, replayed.

    Graphs are captured with the first batch, and again with one of another shape or of more boxes
    than there is room for. In evaluation, without gradients, and where capturing fails, of which
    a line tells, the modules run as ever.

    Args:
        detector: has `bev`, `head` and `dense_loss`; its weights must stay where they are.
        dtype: of autocast; None for none.
    """

    def __init__(self, detector: nn.Module, dtype: torch.dtype | None):
        self.detector = detector
        self.dtype = dtype
        self.graphs: _Graphs | None = None
        self.failed = False

    def __call__(
        self, bev: Tensor, true: TrueBoxes, labelled: Tensor | None = None
    ) -> dict[str, Tensor]:
        training = torch.is_grad_enabled() and self.detector.head.training
        if training and (self.graphs is None or not self.graphs.fit(bev, true)):
            self.graphs = None              # gives its memory back first
            self._capture(bev, true)
        if not training or self.graphs is None:
            return self.detector.dense_loss(bev, true, labelled)
        return self.graphs(bev, true, labelled)

    def _capture(self, bev: Tensor, true: TrueBoxes) -> None:
        if self.failed:
            return
        room = BOXES_PER_FRAME * true.batch_size
        while room < len(true.boxes):
            room *= 2
        try:
            self.graphs = _Graphs(self.detector, self.dtype, bev, true, room)
        except RuntimeError as error:
            self.failed = True
            print(
                f"cuda_graph: capturing failed ({str(error).strip().splitlines()[0]}), modules "
                f"run one by one; cuda_graph=False spares the attempt",
                flush=True,
            )


class _Graphs:
    """Forward and backward of one shape, and the memory that they read and write."""

    def __init__(
        self, detector: nn.Module, dtype: torch.dtype | None, bev: Tensor, true: TrueBoxes,
        room: int,
    ):  # fmt: skip
        self.bev = torch.empty_like(bev).copy_(bev.detach()).requires_grad_(bev.requires_grad)
        boxes = true.boxes.new_zeros(room, true.boxes.shape[1])
        nothing = torch.full((room,), -1, dtype=torch.int64, device=bev.device)
        self.true = TrueBoxes(boxes, nothing, torch.zeros_like(nothing), true.batch_size)
        self.labelled = torch.ones(
            true.batch_size, len(detector.classes), dtype=torch.bool, device=bev.device
        )
        self._write(bev, true, None)
        parts = nn.ModuleList([detector.bev, detector.head])
        self.weights = [p for p in parts.parameters() if p.requires_grad]
        inputs = [self.bev] * bev.requires_grad + self.weights

        def forward() -> dict[str, Tensor]:
            # Weights are cast anew in every replay.
            enabled = dtype is not None
            with torch.autocast("cuda", dtype, enabled=enabled, cache_enabled=False):
                return detector.dense_loss(self.bev, self.true, self.labelled)

        statistics = [buffer.clone() for buffer in parts.buffers()]
        stream = torch.cuda.Stream(bev.device)
        stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(stream):
                for _ in range(WARM_UPS):   # compiles, and finds the fastest convolutions
                    terms = forward()
                    torch.autograd.grad(sum(terms.values()), inputs)
            torch.cuda.current_stream().wait_stream(stream)
        finally:
            for buffer, before in zip(parts.buffers(), statistics, strict=True):
                buffer.copy_(before)

        # Other threads, which copy batches into pinned memory, may go on meanwhile.
        options = {"stream": stream, "capture_error_mode": "thread_local"}
        self.forward, self.backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.forward, **options):
            terms = forward()
        self.names, self.terms = list(terms), list(terms.values())
        self.term_gradients = [torch.ones_like(term) for term in self.terms]
        with torch.cuda.graph(self.backward, pool=self.forward.pool(), **options):
            gradients = torch.autograd.grad(self.terms, inputs, self.term_gradients)
        self.bev_gradient = gradients[0] if bev.requires_grad else None
        self.weight_gradients = gradients[len(gradients) - len(self.weights) :]
        self.terms = [term.detach() for term in self.terms]

    def fit(self, bev: Tensor, true: TrueBoxes) -> bool:
        return (
            (bev.shape, bev.dtype, bev.requires_grad)
            == (self.bev.shape, self.bev.dtype, self.bev.requires_grad)
            and len(true.boxes) <= len(self.true.boxes)
            and true.boxes.shape[1] == self.true.boxes.shape[1]
        )

    def __call__(
        self, bev: Tensor, true: TrueBoxes, labelled: Tensor | None
    ) -> dict[str, Tensor]:
        terms = _Replay.apply(self, true, labelled, bev, *self.weights)
        return dict(zip(self.names, terms, strict=True))

    @torch.no_grad()
    def _write(self, bev: Tensor, true: TrueBoxes, labelled: Tensor | None) -> None:
        count = len(true.boxes)
        self.bev.copy_(bev)
        self.true.boxes[:count].copy_(true.boxes)
        self.true.labels.fill_(-1)
        self.true.labels[:count].copy_(true.labels)
        self.true.frames[:count].copy_(true.frames)
        if labelled is None:
            self.labelled.fill_(True)
        else:
            self.labelled.copy_(labelled)


class _Replay(torch.autograd.Function):
    """The graphs as one step of autograd. Gradients are handed on where the graph wrote them: they
    are read before the next replay, if every backward is followed by an update."""

    @staticmethod
    def forward(ctx, graphs: _Graphs, true: TrueBoxes, labelled: Tensor | None, bev, *weights):
        ctx.graphs = graphs
        graphs._write(bev, true, labelled)
        graphs.forward.replay()
        # They are looked at later than the next replay.
        return tuple(term.clone() for term in graphs.terms)

    @staticmethod
    @once_differentiable
    def backward(ctx, *term_gradients: Tensor):
        graphs = ctx.graphs
        for place, gradient in zip(graphs.term_gradients, term_gradients, strict=True):
            place.copy_(gradient)
        graphs.backward.replay()
        bev, *weights = (
            None if gradient is None else gradient.detach()
            for gradient in (graphs.bev_gradient, *graphs.weight_gradients)
        )
        return None, None, None, bev, *weights
