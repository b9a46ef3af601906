"""The functions of sodetlib, on the simulated SMuRF: what they do, return, write and publish is what scripts expect."""
