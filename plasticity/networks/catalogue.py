"""All built-in networks by name."""

from collections.abc import Callable, Mapping

from plasticity.networks.attention import vit
from plasticity.networks.presets import layer_norm_mlp, minatar, mlp, nature, streaming
from plasticity.networks.recurrent import gru, lstm, rtu
from plasticity.networks.residual import impala, multi_skip, residual_mlp, resnet18, simba, simba_v2
from plasticity.networks.spec import NetworkSpec

NETWORKS: Mapping[str, Callable[..., NetworkSpec]] = {
    "mlp": mlp,
    "layer_norm_mlp": layer_norm_mlp,
    "minatar": minatar,
    "nature": nature,
    "streaming": streaming,
    "resnet18": resnet18,
    "impala": impala,
    "residual_mlp": residual_mlp,
    "multi_skip": multi_skip,
    "simba": simba,
    "simba_v2": simba_v2,
    "vit": vit,
    "gru": gru,
    "lstm": lstm,
    "rtu": rtu,
}
