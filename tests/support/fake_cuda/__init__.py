"""A pretend `cuda:0` for machines without a GPU: real numbers on the CPU, another device on the outside.

It shows where work is done and how often the host waits. It says nothing about speed, memory or CUDA's own kernels.

    hooks.cpp    what torch's C++ side asks of a device, as a library to preload
    library      compiles it, and starts a process with it
    tensors      the tensors: they mix with no tensor of the CPU, as on a real GPU
    records      what happened, by operator and line of our code
    patches      the functions of torch.cuda and Lightning that would ask a driver
    commands     a program: runs commands of `r1` on the pretend device and writes what it recorded
"""
