"""Runs model-written programs as hostile code: namespaces, limits, a system-call filter, one process per test case.

`sandbox` is the interface, in the trainer's process. Inside the sandbox: `init` is its process 1; `namespaces`, `seccomp` and
`system_calls` isolate it; `watch` enforces the limits; `child` runs answers and test scripts; `transfer` carries values between
the two; `interpreter_exit` ends them as Python ends; `allowed_packages` lets named packages in.
"""
