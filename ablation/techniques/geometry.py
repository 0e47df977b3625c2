"""Images read at other places: rotated, moved, scaled, sheared. Shapes: B batch, C channels, H height, W width.

A matrix acts on pixels counted from the middle of the image. Applied to coordinates that run from -1 to 1 on both axes it would
distort images that are not square.
"""

import math

import torch
from pydantic import AfterValidator
from torch import Tensor
from torch.nn import functional


def checked_degrees(degrees: float) -> float:
    """The same angle, which must not be as small as one in radians is likely to be: 0.26, 0.52."""
    if 0 < degrees < 0.6:
        raise ValueError(f"degrees, such as 15; {degrees:g} radians would be {math.degrees(degrees):.3g} degrees")
    return degrees


CheckedDegrees = AfterValidator(checked_degrees)


def source_matrices(angle_B: Tensor, shear_B: Tensor, shift_x_B: Tensor, shift_y_B: Tensor, scale_B: Tensor) -> Tensor:
    """For each image the matrix 2x3 from a pixel of the result to its source, in pixels from the middle; angles are in degrees.

    It is the inverse of shift * rotation * scale * shear along x, positive angles turning clockwise.
    """
    cos_B, sin_B, tan_B = angle_B.deg2rad().cos(), angle_B.deg2rad().sin(), shear_B.deg2rad().tan()
    xx_B = (cos_B - sin_B * tan_B) / scale_B
    xy_B = (cos_B * tan_B + sin_B) / scale_B
    yx_B = -sin_B / scale_B
    yy_B = cos_B / scale_B
    x_B = -(xx_B * shift_x_B + xy_B * shift_y_B)
    y_B = -(yx_B * shift_x_B + yy_B * shift_y_B)
    return torch.stack([torch.stack([xx_B, xy_B, x_B], 1), torch.stack([yx_B, yy_B, y_B], 1)], 1)


def warp(images_BCHW: Tensor, matrix_B23: Tensor, interpolation: str) -> Tensor:
    """The images read at the places that the matrices name, black outside."""
    height, width = images_BCHW.shape[2:]
    device = images_BCHW.device
    x_W = torch.arange(width, device=device) - (width - 1) / 2
    y_H1 = (torch.arange(height, device=device) - (height - 1) / 2)[:, None]
    # By single products and not by affine_grid, whose matrix product may run at reduced precision on a GPU.
    source_BHW2 = [
        (row_B3[:, 0, None, None] * x_W + row_B3[:, 1, None, None] * y_H1 + row_B3[:, 2, None, None]) / (side / 2)
        for row_B3, side in ((matrix_B23[:, 0], width), (matrix_B23[:, 1], height))
    ]
    grid_BHW2 = torch.stack(source_BHW2, dim=-1)
    read = functional.grid_sample(images_BCHW.float(), grid_BHW2, mode=interpolation, padding_mode="zeros", align_corners=False)
    return read.to(images_BCHW.dtype)
