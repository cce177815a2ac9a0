"""What every video model promises to the rest of the package, and the TSN frame that most of them share."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypedDict

from torch import Tensor, nn

from actcli.errors import ActcliError
from actcli.models.policy import ParameterRule, single_group, tsn_groups

# B clips, T frames of a clip, N = B * T, C channels, H W spatial

Criterion = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class InputSpec:
    """What a model wants to see: pixels are divided by ``255 / value_range``, then ``(x - mean) / std``.

    ``mean`` and ``std`` hold one value per input channel in the order of ``channel_order``; a two-stream model lists
    its three RGB channels first, then those of its flow.
    """

    modality: str
    """``"rgb"``, ``"flow"`` or ``"two_stream"``."""
    mean: tuple[float, ...]
    """Mean of each input channel, on the scale of ``value_range``."""
    std: tuple[float, ...]
    """Standard deviation of each input channel, on the scale of ``value_range``."""
    channel_order: str = "rgb"
    """``"rgb"`` or ``"bgr"``; flow is always x, y, x, y, …"""
    value_range: float = 1.0
    """1.0: bytes are divided by 255 before mean and std; 255.0: they are not."""
    size: int = 224
    """Side of the crop, in pixels, as published."""
    scale_size: int = 256
    """Short side before cropping, in pixels, as published."""
    flow_stack: int = 0
    """Number of x, y pairs per segment; 0 where no flow is read."""


class ParameterGroup(TypedDict):
    """Parameters with the same multipliers, as torch's optimisers take them."""

    params: list[nn.Parameter]
    lr: float
    weight_decay: float
    lr_mult: float
    decay_mult: float


class VideoModel(nn.Module):
    """Base of all models: a clip (or two streams of it) in, logits ``[B, num_classes]`` out."""

    config: Mapping[str, object] = MappingProxyType({})
    """The keyword arguments of :func:`create_model` that make this model again, name included."""
    input_spec: InputSpec
    num_frames: int
    partial_bn = False
    frozen = False
    """Whether only the classifier is trained."""
    policy_switches: tuple[str, ...] = ()
    """Switches that :meth:`parameter_policy` knows."""
    applies_multipliers = True
    """Whether the original code trains with the multipliers of its policy, or builds groups and ignores them."""

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        count = self.config["num_classes"]
        assert isinstance(count, int)
        return count

    def training_loss(self, inputs: tuple[Tensor, ...], labels: Tensor, criterion: Criterion) -> tuple[Tensor, Tensor]:
        """Loss of a batch and its logits; ``inputs`` is the tuple that ``forward`` takes."""
        logits = self(*inputs)
        return criterion(logits, labels), logits

    def parameter_policy(self, **switches: bool) -> list[ParameterRule]:
        """Learning-rate and decay multipliers of every trained parameter, after the original code.

        ``fc_lr5`` speeds the classifier up 5 times (its bias 10 times). ``partial_bn`` leaves out all batch norms but
        the first, and freezes them in the model as well (see :meth:`set_partial_bn`), so that the two agree.

        Raises:
            ActcliError: a switch is on that this model does not have.
        """
        unknown = [name for name, on in switches.items() if on and name not in self.policy_switches]
        if unknown:
            raise ActcliError(
                f"the parameter policy of {self.config['name']} has no switch {', '.join(unknown)}. "
                f"Its switches: {', '.join(self.policy_switches) or 'none'}."
            )
        self.set_partial_bn(switches.get("partial_bn", False))
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        return [rule for rule in self._parameter_rules(fc_lr5=switches.get("fc_lr5", False)) if rule.name in trained]

    def _parameter_rules(self, *, fc_lr5: bool) -> list[ParameterRule]:
        return single_group(self)

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier by a fresh one for ``num_classes`` classes, in ``config`` as well."""
        self._make_classifier(num_classes)
        self.config = {**self.config, "num_classes": num_classes}

    def _make_classifier(self, num_classes: int) -> None:
        raise NotImplementedError

    def frame_networks(self) -> list[nn.Module]:
        """The 2-D networks inside, which image weights fit."""
        return [self.get_submodule("backbone")]

    def classifiers(self) -> list[nn.Module]:
        """What :meth:`reset_classifier` replaces."""
        return [self.get_submodule("classifier")]

    def undecayed(self) -> set[str]:
        """Parameters that are no vectors and should not decay all the same, where vectors do not."""
        return set()

    def layer_numbers(self) -> dict[str, int]:
        """The layer of each parameter, counted from the input.

        Raises:
            ActcliError: This is no transformer.
        """
        raise ActcliError(f"{self.config['name']} is no transformer, which layer_decay is for; leave it out.")

    def freeze_backbone(self) -> None:
        """Train the classifier alone: what is before it gets no gradients, and its norms keep their statistics."""
        self.frozen = True
        self.requires_grad_(False)
        for classifier in self.classifiers():
            classifier.requires_grad_()
        self.train(self.training)

    def parameter_groups(self, learning_rate: float, weight_decay: float, **switches: bool) -> list[ParameterGroup]:
        """The policy as parameter groups for a torch optimiser: one group per pair of multipliers.

        Where the original ignores its multipliers (``applies_multipliers``) there is one group.
        """
        parameters = dict(self.named_parameters())
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for rule in self.parameter_policy(**switches):
            multipliers = (rule.lr_mult, rule.decay_mult) if self.applies_multipliers else (1, 1)
            groups.setdefault(multipliers, []).append(parameters[rule.name])
        return [
            {
                "params": params,
                "lr": learning_rate * lr_mult,
                "weight_decay": weight_decay * decay_mult,
                "lr_mult": lr_mult,
                "decay_mult": decay_mult,
            }
            for (lr_mult, decay_mult), params in groups.items()
        ]

    def set_partial_bn(self, enabled: bool) -> None:
        """Freeze every batch norm but the first (TSN's partial batch norm), or release them.

        Frozen norms keep their statistics and their scale and shift, through ``train()`` as well. As in the original
        code a 3-D batch norm loses its gradients but goes on updating its statistics.
        """
        self.partial_bn = enabled
        for norm in self._later_norms():
            for parameter in norm.parameters():
                parameter.requires_grad_(not enabled and not self.frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> "VideoModel":
        """Set the training mode; frozen networks and batch norms stay in evaluation mode."""
        super().train(mode)
        if self.frozen:
            for network in self.frame_networks():
                network.eval()
        if self.partial_bn:
            for norm in self._later_norms():
                norm.train(mode and not isinstance(norm, nn.BatchNorm2d))
        return self

    def _later_norms(self) -> Iterator[nn.Module]:
        norms = (module for module in self.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm))
        next(norms, None)
        return norms


class SegmentModel(VideoModel):
    """Temporal Segment Network: a 2-D backbone on every frame, dropout, a classifier, the mean over frames.

    Temporal models change what happens inside the backbone; this frame around it stays the same.
    Paper: Wang et al., "Temporal Segment Networks", ECCV 2016, https://arxiv.org/abs/1608.00859.
    """

    policy_switches: tuple[str, ...] = ("fc_lr5", "partial_bn")

    def __init__(
        self, backbone: nn.Module, input_spec: InputSpec, *, num_classes: int, num_frames: int, dropout: float
    ) -> None:
        """Put ``backbone`` (``[N, C, H, W]`` → ``[N, backbone.num_features]``) into the frame."""
        super().__init__()
        if not 0 <= dropout < 1:
            raise ActcliError(f"dropout is {dropout}; it has to be at least 0 and below 1.")
        self.backbone = backbone
        self.input_spec = input_spec
        self.num_frames = num_frames
        self.dropout = nn.Dropout(dropout)
        self._make_classifier(num_classes)

    def _make_classifier(self, num_classes: int) -> None:
        """Start a classifier from N(0, 0.001) weights and zero biases, as all originals do."""
        self.classifier = nn.Linear(int(self.backbone.num_features), num_classes)  # type: ignore[arg-type]
        nn.init.normal_(self.classifier.weight, std=0.001)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, clip_BTCHW: Tensor) -> Tensor:
        """``[B, T, C, H, W]``, normalised, T = ``num_frames`` → logits ``[B, num_classes]``."""
        check_frames(clip_BTCHW, self.num_frames)
        features_ND = self.backbone(clip_BTCHW.flatten(0, 1))
        scores_NK = self.classifier(self.dropout(features_ND))
        scores_BTK: Tensor = scores_NK.view(clip_BTCHW.shape[0], -1, scores_NK.shape[1])
        return scores_BTK.mean(1)

    def _parameter_rules(self, *, fc_lr5: bool) -> list[ParameterRule]:
        return tsn_groups(self, fc_lr5=fc_lr5, fast_first_conv=self.input_spec.modality == "flow")


def check_frames(clip_BTCHW: Tensor, num_frames: int) -> None:
    """Raise :class:`ActcliError` unless the clip is ``[B, num_frames, C, H, W]``."""
    if clip_BTCHW.ndim != 5 or clip_BTCHW.shape[1] != num_frames:
        raise ActcliError(
            f"the model was made for clips [B, {num_frames}, C, H, W] and got {list(clip_BTCHW.shape)}. "
            f"Feed {num_frames} frames, or make the model with another num_frames."
        )
