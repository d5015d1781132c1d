"""Bugs to plant in kernels that copy asynchronously, and what has to find them."""

from tests.cuda.mutant import RACE, Mutant

SELFTEST = "tests/cuda_emu/selftest_copies.cu"
TOO_EARLY = r"AddressSanitizer: use-after-poison"
OVERRUN = r"more arrivals than the 1 that the mbarrier was initialised with"


def _tests(name: str) -> str:
    return f"tests/cuda/test_async_copies.py -k 'test_result and forward and {name}'"


ASYNC_MUTANTS = (
    Mutant(
        "no barrier before what others have copied is read",
        SELFTEST,
        "wait_for_copies<0>();\n         __syncthreads();",
        "wait_for_copies<0>();",
        _tests("block"),
        "selftest_copies",
        RACE,
        sanitizer="thread",
    ),
    Mutant(
        "a barrier before one's own copies have come, for those of others",
        SELFTEST,
        "wait_for_copies<0>();\n         __syncthreads();",
        "__syncthreads();\n         wait_for_copies<0>();",
        _tests("block"),
        "selftest_copies",
        RACE,
        sanitizer="thread",
    ),
    Mutant(
        "a stage read while it is filled",
        SELFTEST,
        "wait_for_copies<1>();\n           sum",
        "wait_for_copies<2>();\n           sum",
        _tests("stages"),
        "selftest_copies",
        TOO_EARLY,
        sanitizer="address",
    ),
    Mutant(
        "a bulk copy read while it is under way",
        SELFTEST,
        "wait_for_phase(mbarrier, 0);\n         return stage[thread()",
        "return stage[thread()",
        _tests("bulk"),
        "selftest_copies",
        TOO_EARLY,
        sanitizer="address",
    ),
    Mutant(
        "a copy of what lies behind an array",
        SELFTEST,
        "copy_async(packs + thread(), numbers.packs + 63 - thread());",
        "copy_async(packs + thread(), numbers.packs + 64 - thread());",
        _tests("copy_async"),
        "selftest_copies",
        r"AddressSanitizer: global-buffer-overflow",
        sanitizer="address",
    ),
    Mutant(
        "a bulk copy of what lies behind an array",
        SELFTEST,
        "copy_bulk(stage, numbers.packs, bytes, mbarrier);",
        "copy_bulk(stage, numbers.packs + kPacks - 1, bytes, mbarrier);",
        _tests("bulk"),
        "selftest_copies",
        r"AddressSanitizer: global-buffer-overflow",
        sanitizer="address",
    ),
    Mutant(
        "a stage refilled before it is empty",
        SELFTEST,
        "wait_for_phase(empty + stage, parity ^ 1);",
        "",
        _tests("ring"),
        "selftest_copies",
        OVERRUN,
    ),
    Mutant(
        "a stage refilled before it is empty, but once its copy has come",
        SELFTEST,
        "wait_for_phase(empty + stage, parity ^ 1);",
        "if (turn >= 2) wait_for_phase(full + stage, parity ^ 1);",
        _tests("ring"),
        "selftest_copies",
        RACE,
        sanitizer="thread",
    ),
    Mutant(
        "a stage given back by a lane while others read it",
        SELFTEST,
        "      __syncwarp();\n      if (lane() == 0) arrive",
        "      if (lane() == 0) arrive",
        _tests("ring"),
        "selftest_copies",
        RACE,
        sanitizer="thread",
    ),
    Mutant(
        "the parity of the first phase for ever",
        SELFTEST,
        "const unsigned parity = turn / 2 % 2;",
        "const unsigned parity = 0;",
        _tests("ring"),
        "selftest_copies",
        OVERRUN,
    ),
    Mutant(
        "mbarriers used before others know of them",
        SELFTEST,
        "    copy_bulk(stage, numbers.packs, bytes, mbarrier);\n  }\n  __syncthreads();",
        "    copy_bulk(stage, numbers.packs, bytes, mbarrier);\n  }",
        _tests("bulk"),
        "selftest_copies",
        RACE,
        sanitizer="thread",
    ),
    Mutant(
        "slots written again while another block reads them",
        SELFTEST,
        "    sync_cluster();  // before the slots are written again, or go\n",
        "",
        "tests/cuda/test_async_copies.py -k stores_to",
        "selftest_copies",
        RACE,
        sanitizer="thread",
    ),
)
