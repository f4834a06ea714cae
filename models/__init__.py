"""Neural networks and measured profiles: loading, preprocessing, prediction. Imports nothing of the scheduler.

`catalogue`, `profile` and `emulation` need no more than numpy; `images` and `preprocess` need OpenCV; `network`
needs torch.
"""

import os

# ONNX Runtime from 1.32 on keeps an identifier of the machine in the home folder and reports its use to its maker, as
# soon as it is imported: only if it is asked to, by "0".
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
