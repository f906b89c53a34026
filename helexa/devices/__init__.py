"""What a node computes on: finding devices, reading them, and telling when one is lost.

host          what the machine says of itself                     /proc, /sys, /etc
memory        the memory there is for the CPU device              cgroups and /proc/meminfo
cuda          cards and primary contexts                          the driver, through cuda-python
nvml          memory, heat and processes of a card                NVML, through cuda-python
build         what the installed torch was built for
compatibility whether that torch can use a card (pure)
reasons       why there is no CUDA, in words (pure)
faults        what an error means for its device (pure)
discovery     all of it, once, as a value
monitor       one device's readings and its context, from then on
shapes        the JSON of both
doctor        `helexa doctor`

Nothing here knows Trio: whoever calls a function that may block calls it in a thread.
"""
