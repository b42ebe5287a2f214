"""A launcher that runs a step's own function in this process, for products that exist only in tests."""

from typing import Any

from platform_assets.base.settings import Settings
from platform_assets.launch.attempt import StepRequest
from platform_assets.launch.launchers import StepLauncher
from platform_assets.product.spec import Product
from platform_assets.training.steps import export, train


class InProcessLauncher(StepLauncher):
    """Launcher for one spec that is not in `platform_assets/products`; lists the steps that it ran."""

    def __init__(self, spec: Product, settings: Settings) -> None:
        self.spec = spec
        self.settings = settings
        self.ran: list[str] = []

    def run_step(self, request: StepRequest) -> Any:
        context, module, extras = request.context, request.module, request.extras
        self.ran.append(module.rsplit(".", 1)[-1])
        if module == "platform_assets.launch.train":
            job = train.Job.from_extras(extras)
            return train.Training(self.spec, job, self.settings, log=context.log.info).run()
        return export.run(self.spec, extras["checkpoint"], self.settings, log=context.log.info)
