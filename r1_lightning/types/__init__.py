"""Values and Protocols that cross layers: frozen dataclasses, no behaviour; every other layer may import this one."""
