"""How many blocks of a kernel a multiprocessor holds at a time."""

from tools.kernels import Kernel

# From the technical specifications per compute capability in NVIDIA's CUDA programming guide. These three differ in
# shared memory alone.
MAX_WARPS = 64
MAX_BLOCKS = 32
REGISTERS = 64 * 1024
SHARED_BYTES = {80: 164 * 1024, 90: 228 * 1024, 100: 228 * 1024}


def resident_blocks(kernel: Kernel) -> int:
    """Of the largest size that the kernel allows, without the shared memory that a launch may ask for."""
    # A warp belongs to one of four schedulers, each with a quarter of the registers, and takes them by 256.
    warp_registers = _round_up(32 * kernel.registers, 256)
    warps = 4 * (REGISTERS // 4 // warp_registers)
    # Every block takes 1024 bytes of shared memory for the system.
    shared = _round_up(kernel.shared + 1024, 128)
    return min(MAX_BLOCKS, MAX_WARPS // kernel.warps, warps // kernel.warps, SHARED_BYTES[kernel.sm] // shared)


def resident_warps(kernel: Kernel) -> int:
    return resident_blocks(kernel) * kernel.warps


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
