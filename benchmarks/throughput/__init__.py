"""What finetune_throughput.py measures, variant by variant, each in a process of its own."""
