"""The NVIDIA driver's library as tests know it: one with the real symbols that replays what a text
file says, values, errors, slowness, hangs and crashes. The real bindings are loaded onto it."""
