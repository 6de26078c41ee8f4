"""The parts of docs/benchmarks.md in their order, by the name of the result each is made from."""

from benchmarks import determinism, gpu, importing, interruption, interventions, mutation, probes, unlearning

DESCRIBED = {
    "importing": importing.describe,
    "reading": interventions.describe_reading,
    "collecting": interventions.describe_collecting,
    "memory": interventions.describe_memory,
    "probes": probes.describe,
    "probes_on_demand": probes.describe_on_demand,
    "update": unlearning.describe_step,
    "training_memory": unlearning.describe_training_memory,
    "unlearning_8b": unlearning.describe_8b,
    "determinism": determinism.describe,
    "interruption": interruption.describe,
    "mutation": mutation.describe,
    "gpu": gpu.describe_reading,
    "gpu_collecting": gpu.describe_collecting,
}
