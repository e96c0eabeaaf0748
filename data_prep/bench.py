"""How fast the renderer is: images per second of one process, without JPEG."""

import time

from data_prep.photograph import render
from data_prep.synthetic import BATCH, plan_set


def images_per_second(size=(128, 64), images=640):
    """Render `images` shots of the Market-like set's plan; scenes are painted before the clock starts."""
    plan = plan_set("market", "mini", 0)
    shots = plan.shots[:: max(1, len(plan.shots) // images)][:images]
    render(shots[:BATCH], plan.cameras, size)
    began = time.process_time()
    for start in range(0, len(shots), BATCH):
        render(shots[start: start + BATCH], plan.cameras, size)
    return len(shots) / (time.process_time() - began)
