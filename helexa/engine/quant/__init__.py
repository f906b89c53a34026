"""Linear layers with packed weights: what `quant` of a load asks for.

grid     weights on grids of 16 levels, 32 of them to a scale and a zero       (arithmetic)
kernels  packing such grids and multiplying by them: torch's own kernels on CPU and CUDA
linear   modules that stand in for torch.nn.Linear
packer   which layers of a model are packed, and doing so while it is loaded
kept     the file beside a model in which packed weights are kept for the next load
speed    how fast a device multiplies in each form; pieces: made-up layers for it, kept_speeds: what was found
"""
