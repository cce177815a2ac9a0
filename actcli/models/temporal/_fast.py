"""Forms of the temporal blocks that save memory and time where torch runs operator by operator.

Each stands for a plain form in the module that names the paper, computes the same values and gradients, and is tested
against it. ``torch.compile``, ``torch.export`` and ONNX get the plain forms: they fuse operators themselves, and know
nothing of hooks and of tensors that change in place.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.grad import conv2d_weight
from torch.utils.flop_counter import register_flop_formula

# B clips, T frames, N = B * T frames with the T of a clip next to each other, C channels, H W spatial, P = H * W

_plain: ContextVar[bool] = ContextVar("plain", default=False)


@contextmanager
def plain_forms() -> Iterator[None]:
    """Within the block the models compute with their plain forms."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def use_fast() -> bool:
    """Whether the fast forms may be used here."""
    if torch.compiler.is_compiling():
        return False
    return not _plain.get()


def split_clips(x_NCHW: Tensor, num_frames: int) -> Tensor:
    """``[B * T, ...]`` → ``[B, T, ...]``, a view."""
    return x_NCHW.view(-1, num_frames, *x_NCHW.shape[1:])


# --- The temporal shift ----------------------------------------------------------------------------------------------


def shift_frames(x_NCHW: Tensor, num_frames: int, fold: int) -> Tensor:
    """The shift, one pass over memory and nothing kept for the gradient."""
    shifted: Tensor = _Shift.apply(x_NCHW, num_frames, fold, False)
    return shifted


@contextmanager
def shifted_in_place(x_NCHW: Tensor, num_frames: int, fold: int) -> Iterator[None]:
    """Within the block ``x_NCHW`` holds its own shift; afterwards it is as before. For inference.

    Only the moving channels are touched, and no second tensor of full size is needed. What the shift drops, the first
    frame of the channels from t + 1 and the last of those from t - 1, is kept aside.
    """
    x_BTCHW = split_clips(x_NCHW, num_frames)
    back, on = x_BTCHW[:, :, :fold], x_BTCHW[:, :, fold : 2 * fold]
    dropped_first, dropped_last = back[:, 0].clone(), on[:, -1].clone()
    _move(back, slice(1, None), slice(None, -1), fill=(-1, 0))
    _move(on, slice(None, -1), slice(1, None), fill=(0, 0))
    try:
        yield
    finally:
        _move(back, slice(None, -1), slice(1, None), fill=(0, dropped_first))
        _move(on, slice(1, None), slice(None, -1), fill=(-1, dropped_last))


def _move(x_BTCHW: Tensor, source: slice, to: slice, fill: tuple[int, Tensor | int]) -> None:
    """Move frames within a tensor and fill the frame that is left over."""
    x_BTCHW[:, to] = x_BTCHW[:, source].clone()  # source and target overlap
    x_BTCHW[:, fill[0]] = fill[1]


def _shifted_copy(x_NCHW: Tensor, num_frames: int, fold: int, reverse: bool) -> Tensor:
    out_NCHW = torch.empty_like(x_NCHW)
    x, out = split_clips(x_NCHW, num_frames), split_clips(out_NCHW, num_frames)
    back, on = slice(0, fold), slice(fold, 2 * fold)
    if reverse:
        back, on = on, back
    out[:, :-1, back] = x[:, 1:, back]
    out[:, -1, back] = 0
    out[:, 1:, on] = x[:, :-1, on]
    out[:, 0, on] = 0
    out[:, :, 2 * fold :] = x[:, :, 2 * fold :]
    return out_NCHW


class _ShiftContext(Protocol):
    """What the shift keeps for its backward pass."""

    arguments: tuple[int, int, bool]


class _Shift(torch.autograd.Function):
    """The shift keeps nothing for its backward pass, which is the shift the other way."""

    @staticmethod
    def forward(ctx: _ShiftContext, x_NCHW: Tensor, num_frames: int, fold: int, reverse: bool) -> Tensor:
        ctx.arguments = (num_frames, fold, reverse)
        return _shifted_copy(x_NCHW, num_frames, fold, reverse)

    @staticmethod
    def backward(ctx: _ShiftContext, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        num_frames, fold, reverse = ctx.arguments
        return _shifted_copy(grads[0], num_frames, fold, not reverse), None, None, None


def shifted_convolution(convolve: Callable[[Tensor], Tensor], x_NCHW: Tensor, num_frames: int, fold: int) -> Tensor:
    """``convolve`` of the shifted input, without a second tensor of its size.

    For its weight gradient a convolution keeps its input. Here that would be a copy of a tensor that the layer before
    keeps anyway, so the unshifted one is kept and shifted again when the gradient asks for it. Without gradients the
    shift happens in place and is undone.
    """
    if not (torch.is_grad_enabled() or x_NCHW.requires_grad):
        with shifted_in_place(x_NCHW, num_frames, fold):
            return convolve(x_NCHW)
    shifted = shift_frames(x_NCHW, num_frames, fold)
    kept, address = x_NCHW.detach(), shifted.data_ptr()  # the hooks live on and must not hold the shifted tensor

    def pack(tensor: Tensor) -> Tensor | None:
        return None if tensor.data_ptr() == address else tensor

    def unpack(packed: Tensor | None) -> Tensor:
        return _shifted_copy(kept, num_frames, fold, False) if packed is None else packed

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        return convolve(shifted)


# --- The gated shift -------------------------------------------------------------------------------------------------


def move_by_gate(x_NCHW: Tensor, gate_N2HW: Tensor, weight_NC: Tensor | None, num_frames: int) -> Tensor:
    """Gate, shift, blend and interleave in as few passes over memory as operators allow.

    At full width these steps read and write far more than the convolution around them; as single operators they made a
    ResNet-50 twice as slow and kept several tensors of full size for the backward pass, which needs none but ``x``.
    """
    y: Tensor = _MoveByGate.apply(x_NCHW, gate_N2HW, weight_NC, num_frames)
    return y


class _ClipContext(Protocol):
    """What a function over the frames of clips keeps for its backward pass."""

    num_frames: int

    @property
    def saved_tensors(self) -> tuple[Tensor, ...]:
        """Those of ``save_for_backward``."""
        ...

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors."""
        ...


class _MoveByGate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _ClipContext, x_NCHW: Tensor, gate_N2HW: Tensor, weight_NC: Tensor | None, num_frames: int
    ) -> Tensor:
        ctx.save_for_backward(x_NCHW, gate_N2HW, weight_NC)
        ctx.num_frames = num_frames
        x, gate, weight = _parts(x_NCHW, gate_N2HW, weight_NC, num_frames)
        out_NCHW = torch.empty_like(x_NCHW)
        out = _interleaved(out_NCHW, num_frames)
        gated = x * gate
        if weight is None:
            torch.sub(x, gated, out=out)
            out[:, :-1, 0] += gated[:, 1:, 0]
            out[:, 1:, 1] += gated[:, :-1, 1]
        else:
            torch.mul(x - gated, 1 - weight, out=out)
            out[:, :-1, 0].addcmul_(gated[:, 1:, 0], weight[:, :-1, 0])
            out[:, 1:, 1].addcmul_(gated[:, :-1, 1], weight[:, 1:, 1])
        return out_NCHW

    @staticmethod
    def backward(ctx: _ClipContext, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        x_NCHW, gate_N2HW, weight_NC = ctx.saved_tensors
        x, gate, weight = _parts(x_NCHW, gate_N2HW, weight_NC, ctx.num_frames)
        grad = _interleaved(grads[0], ctx.num_frames)
        grad_rest = grad if weight is None else grad * (1 - weight)
        # what a frame gave to its neighbour comes back from there
        grad_gated = -grad_rest
        grad_moved = grad if weight is None else grad * weight
        grad_gated[:, 1:, 0] += grad_moved[:, :-1, 0]
        grad_gated[:, :-1, 1] += grad_moved[:, 1:, 1]
        grad_gate = (grad_gated * x).sum((3, 4)).view(gate_N2HW.shape)
        grad_weight = None if weight is None else _weight_gradient(grad, x, x * gate).view(weight_NC.shape)
        grad_x_NCHW = torch.empty_like(x_NCHW)
        torch.addcmul(grad_rest, grad_gated, gate, out=_quarters(grad_x_NCHW, ctx.num_frames))
        return grad_x_NCHW, grad_gate, grad_weight, None


def _parts(
    x_NCHW: Tensor, gate_N2HW: Tensor, weight_NC: Tensor | None, num_frames: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """All as ``[B, T, half, quarter, C / 4, H, W]``, by broadcasting."""
    gate = split_clips(gate_N2HW, num_frames)[:, :, :, None, None]
    if weight_NC is None:
        return _quarters(x_NCHW, num_frames), gate, None
    weight = weight_NC.view(-1, num_frames, 2, 2, weight_NC.shape[1] // 4, 1, 1)
    return _quarters(x_NCHW, num_frames), gate, weight


def _quarters(x_NCHW: Tensor, num_frames: int) -> Tensor:
    _, channels, height, width = x_NCHW.shape
    return x_NCHW.view(-1, num_frames, 2, 2, channels // 4, height, width)


def _interleaved(x_NCHW: Tensor, num_frames: int) -> Tensor:
    """The same view of a tensor whose quarters take turns: channel 2k + j is quarter j, channel k."""
    _, channels, height, width = x_NCHW.shape
    return x_NCHW.view(-1, num_frames, 2, channels // 4, 2, height, width).transpose(3, 4)


def _weight_gradient(grad: Tensor, x: Tensor, gated: Tensor) -> Tensor:
    total = (grad * (gated - x)).sum((5, 6))
    total[:, :-1, 0] += (grad[:, :-1, 0] * gated[:, 1:, 0]).sum((4, 5))
    total[:, 1:, 1] += (grad[:, 1:, 1] * gated[:, :-1, 1]).sum((4, 5))
    return total


# --- 3-D convolutions with few outputs -------------------------------------------------------------------------------


def frame_convolution(
    x_NCHW: Tensor, weight_OCKHW: Tensor, bias_O: Tensor | None, num_frames: int, groups: int
) -> Tensor:
    """A 3-D convolution of stride 1 that keeps time and size, as a matrix product.

    A product with every kernel position gives each frame its share in all positions around it, ``z[o, k, i, j]``; the
    shares are then summed where they belong, in space by ``fold`` and in time by :func:`sum_taps`. With few outputs
    that is several times faster on a CPU than a convolution, whose inner loops want many outputs, and the frames never
    have to be moved next to each other.
    """
    size, (num_outputs, _, num_taps, *kernel) = x_NCHW.shape[2:], weight_OCKHW.shape
    # a share lies where the kernel is mirrored: y[p] takes z[k] from p + k, fold gives z[k] to p + k
    mirrored = weight_OCKHW.flip(3, 4)
    rows = mirrored.permute(0, 2, 3, 4, 1).reshape(-1, mirrored.shape[1], 1, 1)  # [O * K * kh * kw, C / groups]
    z = functional.conv2d(x_NCHW, rows, groups=groups)
    if kernel != [1, 1]:
        padding = [side // 2 for side in kernel]
        z = functional.fold(z.flatten(2), size, kernel, padding=padding)  # type: ignore[arg-type]
    y_BTOHW = sum_taps(z.view(-1, num_frames, num_outputs, num_taps, *size))
    if bias_O is not None:
        y_BTOHW = y_BTOHW + bias_O[:, None, None]
    return y_BTOHW.flatten(0, 1)


def sum_taps(z_BTOKHW: Tensor) -> Tensor:
    """``y[t] = sum over k of z[t + k - K // 2, k]``, frames outside the clip being zero."""
    num_frames, num_taps = z_BTOKHW.shape[1], z_BTOKHW.shape[3]
    middle = num_taps // 2
    y = z_BTOKHW[:, :, :, middle].clone()
    for tap in range(num_taps):
        step = tap - middle
        if step and abs(step) < num_frames:
            to = slice(max(0, -step), num_frames - max(0, step))
            source = slice(max(0, step), num_frames - max(0, -step))
            y[:, to] += z_BTOKHW[:, source, :, tap]
    return y


# --- A convolution over three frames for each channel alone ----------------------------------------------------------


@torch.library.custom_op("actcli::temporal_depthwise", mutates_args=())
def temporal_depthwise(x_NCHW: Tensor, weight_C13: Tensor, num_frames: int) -> Tensor:
    """``[B * T, C, H, W]`` with a kernel ``[C, 1, 3]`` → the same shape.

    It reads little and computes less, so memory traffic decides. In the plain memory format the library convolutions
    first copy everything to bring the frames next to each other; three scaled additions do not. In the channels-last
    format the tensor already is what a 2-D convolution over (time, position) wants.
    """
    if _is_channels_last(x_NCHW):
        kernel = weight_C13.unsqueeze(3)
        y_BCTP = functional.conv2d(_planes(x_NCHW, num_frames), kernel, padding=(1, 0), groups=len(kernel))
        return y_BCTP.transpose(1, 2).reshape(x_NCHW.shape).contiguous(memory_format=torch.channels_last)
    before, here, after = weight_C13[:, 0, :, None, None].unbind(1)
    x = split_clips(x_NCHW, num_frames)
    y = x * here
    y[:, 1:].addcmul_(x[:, :-1], before)
    y[:, :-1].addcmul_(x[:, 1:], after)
    return y.view(x_NCHW.shape)


@torch.library.custom_op("actcli::temporal_depthwise_weight_grad", mutates_args=())
def _weight_grad(x_NCHW: Tensor, grad_NCHW: Tensor, num_frames: int) -> Tensor:
    if _is_channels_last(x_NCHW):
        channels = x_NCHW.shape[1]
        grad: Tensor = conv2d_weight(  # type: ignore[no-untyped-call]
            _planes(x_NCHW, num_frames),
            (channels, 1, 3, 1),
            _planes(grad_NCHW.contiguous(memory_format=torch.channels_last), num_frames),
            padding=(1, 0),
            groups=channels,
        )
        return grad.squeeze(3).contiguous()
    x, grad = split_clips(x_NCHW, num_frames), split_clips(grad_NCHW, num_frames)
    pairs = [(x[:, :-1], grad[:, 1:]), (x, grad), (x[:, 1:], grad[:, :-1])]
    return torch.stack([(seen * asked).sum((0, 1, 3, 4)) for seen, asked in pairs], dim=1).unsqueeze(1)


def _is_channels_last(x_NCHW: Tensor) -> bool:
    return x_NCHW.is_contiguous(memory_format=torch.channels_last) and not x_NCHW.is_contiguous()


def _planes(x_NCHW: Tensor, num_frames: int) -> Tensor:
    """``[B * T, C, H, W]`` → ``[B, C, T, P]``, a view in the channels-last format."""
    return split_clips(x_NCHW, num_frames).flatten(3).transpose(1, 2)


@temporal_depthwise.register_fake
def _(x_NCHW: Tensor, weight_C13: Tensor, num_frames: int) -> Tensor:
    return torch.empty_like(x_NCHW)


@_weight_grad.register_fake
def _(x_NCHW: Tensor, grad_NCHW: Tensor, num_frames: int) -> Tensor:
    return x_NCHW.new_empty(x_NCHW.shape[1], 1, 3)


def _backward(ctx: _ClipContext, grad_NCHW: Tensor) -> tuple[Tensor, Tensor, None]:
    x_NCHW, weight_C13 = ctx.saved_tensors
    grad_x = temporal_depthwise(grad_NCHW, weight_C13.flip(2), ctx.num_frames)
    return grad_x, _weight_grad(x_NCHW, grad_NCHW, ctx.num_frames), None


def _keep(ctx: _ClipContext, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
    x_NCHW, weight_C13, ctx.num_frames = inputs
    ctx.save_for_backward(x_NCHW, weight_C13)


temporal_depthwise.register_autograd(_backward, setup_context=_keep)


@register_flop_formula(torch.ops.actcli.temporal_depthwise)
def _flops(x_shape: torch.Size, weight_shape: torch.Size, *_: object, **__: object) -> int:
    """Two operations per multiply-accumulate, three of those per value, as for a convolution with padding."""
    return 2 * 3 * x_shape.numel()
