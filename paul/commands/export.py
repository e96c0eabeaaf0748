"""`paul export`: a checkpoint as safetensors or ONNX, with a model card."""

from __future__ import annotations

from pathlib import Path

from paul.commands._shared import image_size

HELP = "write a checkpoint as safetensors or ONNX, with a model card"


def options(command) -> None:
    """Of the command line."""
    command.add_argument("checkpoint", help="model.pt of 'paul adapt', checkpoint.pt of a training, or .safetensors")
    command.add_argument("-o", "--out", required=True, help="model.safetensors or model.onnx; the card is model.md")
    command.add_argument("--trained-on", default="", metavar="WORDS", help="about the data, for the card")
    command.add_argument("--image-size", metavar="ROWSxCOLUMNS", help="where the checkpoint does not say it")


def run(args) -> None:
    from paul.engine.files import write_atomically
    from paul.retrieval.export import model_card, open_model, save_onnx, save_safetensors

    out = Path(args.out)
    if out.suffix not in (".safetensors", ".onnx"):
        raise ValueError(f"--out {out}: end it in .safetensors or .onnx")
    model, training = open_model(args.checkpoint)
    if args.image_size:
        model.image_size = image_size(args.image_size)
    if out.suffix == ".onnx":
        save_onnx(model, out)
    else:
        save_safetensors(model, out, training)
    text = model_card(model, out.stem, training, args.trained_on)
    card = out.with_suffix(".md")
    write_atomically(card, lambda file: file.write(text.encode()))
    print(f"{out}: {out.stat().st_size / 2**20:.1f} MB, described in {card}")
