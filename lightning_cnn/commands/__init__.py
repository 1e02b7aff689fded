"""The verbs, one file each. Every file has `main(verb, argv) -> exit code`."""
