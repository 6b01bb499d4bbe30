"""What is mutated, and which tests have to notice: those that mirror the file, the fastest that do."""

T, S, M = "tests/tokenization", "tests/storage", "tests/modeling"
AREAS: dict[str, dict[str, list[str]]] = {
    "tokenization": {
        "tokenization/bpe.py": [f"{T}/test_bpe.py"],
        "tokenization/tokenization_scratchgpt.py": [f"{T}/test_tokenization_scratchgpt.py", f"{T}/test_agreement.py"],
    },
    "sampler": {
        "modeling/sampling.py": [f"{M}/test_sampling.py"],
        "modeling/sampling_settings.py": [f"{M}/test_sampling.py"],
    },
    "checkpoints": {
        "train/checkpoint.py": ["tests/train/test_checkpoint.py"],
        "storage/checksums.py": [f"{S}/test_checksums.py"],
    },
    "run folder": {
        "storage/run_folder.py": [f"{S}/test_run_folder.py", f"{S}/test_followed_run.py"],
        "storage/files.py": [f"{S}/test_files.py"],
    },
    "queues": {
        "panels/request_queue.py": ["tests/panels/test_request_queue.py"],
        "modeling/batching.py": [f"{M}/test_batching.py"],
    },
}
WARM = (
    *("torch", "transformers", "hypothesis", "regex", "tiktoken", "tokenizers", "rustbpe", "numpy", "tqdm", "filelock"),
    *("safetensors.torch", "accelerate.utils", "torch.distributed.tensor", "transformers.models.gpt2.modeling_gpt2"),
    *("transformers.generation.logits_process", "transformers.generation.utils", "transformers.modeling_utils"),
    *("transformers.convert_slow_tokenizer", "transformers.tokenization_python", "sentencepiece"),
)
"""Libraries that the tests import: loaded once, before the first mutant, since that takes longer than the tests."""
