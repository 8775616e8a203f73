"""The weights of a model that only predicts, in the number format in which it computes.

bf16, fp16: autocast would convert the matrices for every batch. int8, on CPUs: linear layers of the encoder with
weights in 8 bits, a scale for every output, and inputs that are rounded to 8 bits anew, a scale for every batch
(dynamic quantization by torch.ao.quantization, which needs nothing else).
"""

import warnings

import torch
from torch import nn

from utils.errors import UserError
from utils.models.device import autocast_dtype
from utils.models.packing import find_encoder


def convert_weights(model: nn.Module, device: torch.device, precision: str) -> None:
    """Convert the linear layers of a model that is not trained any more.

    Args:
        model: a classifier.
        device: where it is.
        precision: bf16, fp16, fp32 or int8.

    Raises:
        UserError: for int8 on a GPU, or of a model without layers that can be converted.
    """
    if precision == "int8":
        _to_int8(model, device)
    elif precision != "fp32":
        for module in model.modules():
            if type(module) is nn.Linear:
                module.to(autocast_dtype(precision))


def _to_int8(model: nn.Module, device: torch.device) -> None:
    if device.type != "cpu":
        raise UserError("--precision int8 is for CPUs; GPUs are faster in bf16")
    encoder = find_encoder(model)
    if not any(type(module) is nn.Linear for module in encoder.modules()):
        raise UserError(f"--precision int8: {model.config.model_type} models have no linear layers of PyTorch's")
    with warnings.catch_warnings():
        # torch.ao.quantization is to make room for torchao; why it is used all the same is in CONTRIBUTING.md.
        warnings.simplefilter("ignore")
        from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

        # The head is small, and its rounding would be the last one.
        quantize_dynamic(encoder, {nn.Linear: per_channel_dynamic_qconfig}, inplace=True)
