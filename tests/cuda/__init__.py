"""The CUDA kernels: run by the emulator or on a GPU, chosen by the policy, compiled through the gates."""
