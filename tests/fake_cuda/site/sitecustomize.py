"""What every Python process on the stand-in does first: cuDNN is not stood in for, so torch's own convolutions are used."""

import sys

if not any("resource_tracker" in argument for argument in sys.orig_argv):  # Python's own helper never trains
    import torch

    torch.backends.cudnn.enabled = False
    torch.backends.cuda.enable_cudnn_sdp(False)
