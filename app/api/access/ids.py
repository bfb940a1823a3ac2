"""The caller of a request, and the ids in paths, as dependencies of routes.

An id of an object that the caller does not see gets the answer of an id that does not exist, before the body is
validated. Callers who see all objects cost no query. Datasets, models and train jobs may be named instead: every route
below one of them gets its id from here. Imports no SQL; runs on the event loop, and queries on a thread.
"""

import asyncio
from typing import Annotated

from fastapi import Depends, Request

from app.access.caller import WRITING_SCOPES, Caller
from app.access.visibility import Kind
from app.api.access.layer import require
from app.api.access.scopes import JOB_SCOPES
from app.api.deps import Id, IdOrName, Services, ServicesDep
from app.names import is_like_an_id


async def get_caller(request: Request) -> Caller:  # `async`, so that it does not run on a thread
    """Return the caller, whom `AccessLayer` has identified; without that layer, every request fails."""
    caller: Caller = request.state.caller
    return caller


CallerDep = Annotated[Caller, Depends(get_caller)]


async def _seen(kind: Kind, object_id: str, caller: Caller, services: Services) -> str:
    if caller.reads_own:
        await asyncio.to_thread(services.visibility.require, kind, object_id, caller)
    return object_id


async def _found(kind: Kind, id_or_name: str, caller: Caller, services: Services) -> str:
    """Return the id of an object that a path names by its id or its name."""
    if is_like_an_id(id_or_name):
        return await _seen(kind, id_or_name, caller, services)
    return await asyncio.to_thread(services.visibility.named, kind, id_or_name, caller)


async def _generation(generation_id: Id, caller: CallerDep, services: ServicesDep) -> str:
    return await _seen("generation", generation_id, caller, services)


async def _image(image_id: Id, caller: CallerDep, services: ServicesDep) -> str:
    return await _seen("image", image_id, caller, services)


async def _dataset(dataset_id: IdOrName, caller: CallerDep, services: ServicesDep) -> str:
    return await _found("dataset", dataset_id, caller, services)


async def _model(model_id: IdOrName, caller: CallerDep, services: ServicesDep) -> str:
    return await _found("model", model_id, caller, services)


async def _job(job_id: Id, caller: CallerDep, services: ServicesDep) -> str:
    return await _seen("job", job_id, caller, services)


async def _train_job(job_id: IdOrName, caller: CallerDep, services: ServicesDep) -> str:
    return await _found("train job", job_id, caller, services)


async def _controlled_job(job_id: Id, caller: CallerDep, services: ServicesDep) -> str:
    """Return the id of a job if the caller sees it and has the scope of its kind."""
    if caller.reads_own or not all(map(caller.may, WRITING_SCOPES)):
        kind = await asyncio.to_thread(services.visibility.job_kind, job_id, caller)
        require(caller, frozenset({JOB_SCOPES[kind]}))
    return job_id


GenerationId = Annotated[str, Depends(_generation)]
ImageId = Annotated[str, Depends(_image)]
DatasetId = Annotated[str, Depends(_dataset)]
ModelId = Annotated[str, Depends(_model)]
JobId = Annotated[str, Depends(_job)]
TrainJobId = Annotated[str, Depends(_train_job)]
ControlledJobId = Annotated[str, Depends(_controlled_job)]
