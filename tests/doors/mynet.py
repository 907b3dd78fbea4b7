"""An embedding network of one's own: a small CNN."""

from torch import Tensor, nn


class MyNet(nn.Module):
    """(B, C, *cells) to (B, features), for maps."""

    def __init__(self, shape: tuple[int, ...], features: int, width: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(shape[0], width, 3, padding=1, padding_mode="circular"),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1, padding_mode="circular"),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(4 * width, features),
        )

    def forward(self, cubes: Tensor) -> Tensor:
        features: Tensor = self.layers(cubes)
        return features
