"""How fast the renderer is: images per second of one process, without JPEG."""

import time

from data_prep.photograph import render, studio
from data_prep.synthetic import batch_size, plan_set


def images_per_second(size=(128, 64), images=640):
    """Render `images` shots of the Market-like set's plan; scenes are painted before the clock starts."""
    plan = plan_set("market", "mini", 0)
    shots = plan.shots[:: max(1, len(plan.shots) // images)][:images]
    number = batch_size(size)
    for camera in plan.cameras:
        studio(camera, size)
    began = time.process_time()
    for start in range(0, len(shots), number):
        render(shots[start: start + number], plan.cameras, size)
    return len(shots) / (time.process_time() - began)
