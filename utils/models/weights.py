"""The weights of a model that only predicts, in the number format in which it computes.

bf16, fp16: autocast would convert the matrices for every batch. int8, on CPUs: the linear layers of the encoder compute
in whole numbers, see `Int8Linear`, and the rest in bf16 where the processor has it.
"""

import warnings

import torch
from torch import nn

from utils.errors import UserError
from utils.models.device import autocast_dtype
from utils.models.packing import find_encoder

# The largest whole number that a weight is rounded to: 8 bits with VNNI. Without it processors add products of 8 bits
# two at a time in 16 bits, which overflow if the weights have more than 7.
LARGEST_WEIGHT = 127 if torch.cpu.get_capabilities().get("avx512_vnni") else 63


class Int8Linear(nn.Module):
    """A linear layer with weights of 8 bits, a scale for every output, and inputs of 8 bits, a scale for every token.

    One scale for all tokens is not enough: transformers have a few inputs far larger than the others (Dettmers et al.
    2022, arXiv:2208.07339).
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        weight = layer.weight.detach().float()
        scales = weight.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / LARGEST_WEIGHT
        zeros = torch.zeros(len(scales), dtype=torch.int64)
        with warnings.catch_warnings():
            # Tensors of whole numbers with scales are to go; why they are used all the same is in CONTRIBUTING.md.
            warnings.simplefilter("ignore")
            rounded = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        self.weight = torch.ops.quantized.linear_prepack(rounded, None)
        self.bias = layer.bias

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Compute the outputs of tokens in float32, shape [..., inputs]."""
        tokens = tokens.float()
        # The largest absolute value; PyTorch's norm takes ten times as long.
        scale = torch.maximum(tokens.amax(-1, keepdim=True), -tokens.amin(-1, keepdim=True))
        scale.clamp_min_(torch.finfo(torch.float32).tiny)
        product = torch.ops.quantized.linear_dynamic(tokens / scale, self.weight, False)
        return product.mul_(scale) if self.bias is None else torch.addcmul(self.bias, product, scale)


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
    linear = [name for name, module in encoder.named_modules() if type(module) is nn.Linear]
    if not linear:
        raise UserError(f"--precision int8: {model.config.model_type} models have no linear layers of PyTorch's")
    # The head is small, and its rounding would be the last one.
    for name in linear:
        encoder.set_submodule(name, Int8Linear(encoder.get_submodule(name)))
