"""The commands of `python -m paul`, one file each: HELP, options(parser) and run(args)."""
