"""The error codes: the stable words that clients switch on, each with its HTTP statuses and its meaning.

Imports no HTTP framework and raises nothing. `docs/errors.md` and the enum in the OpenAPI file are generated from it.
"""

from enum import StrEnum


class ErrorCode(StrEnum):
    """The `code` of an error response.

    Attributes:
        statuses: The HTTP statuses of responses with the code, separated by commas.
        meaning: One sentence for the documentation.
    """

    statuses: str
    meaning: str

    def __new__(cls, value: str, statuses: str, meaning: str) -> "ErrorCode":
        """Make a member whose value is the code."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.statuses, member.meaning = statuses, meaning
        return member

    MALFORMED_REQUEST = "malformed_request", "400", "The request is not well-formed."
    MALFORMED_JSON = "malformed_json", "400", "The body is not valid JSON."
    MALFORMED_FORM = "malformed_form", "400", "The multipart form cannot be read, or has too many parts."
    BAD_CURSOR = "bad_cursor", "400", "The cursor is not one that the service returned."
    BAD_IDEMPOTENCY_KEY = "bad_idempotency_key", "400", "The Idempotency-Key is not 1 to 255 visible ASCII characters."
    IDEMPOTENCY_KEY_NOT_INLINE = "idempotency_key_not_inline", "400", "An inline answer takes no Idempotency-Key."
    KEY_REQUIRED = "key_required", "401", "The request needs an API key, and has none."
    KEY_INVALID = "key_invalid", "401", "The API key is unknown, expired, revoked, or sent in a wrong form."
    SCOPE_MISSING = "scope_missing", "403", "The API key does not have the scope that the route needs."
    FIRST_KEY_BY_COMMAND = (
        "first_key_by_command",
        "403",
        "The node has no API key; the first one is created on its machine, by `foxhound keys create`.",
    )
    CROSS_SITE_REFUSED = (
        "cross_site_refused",
        "403",
        "A page of another origin sends a request that may change something; FOXHOUND_CORS_ORIGINS allows origins.",
    )
    NOT_FOUND = "not_found", "404", "There is nothing here under this id."
    METHOD_NOT_ALLOWED = (
        "method_not_allowed",
        "405",
        "The path does not have this method; `Allow` lists those that it has.",
    )
    NOT_ACCEPTABLE = "not_acceptable", "406", "The answer cannot be given in the form asked for."
    SEVERAL_IMAGES = "several_images", "406", "Image bytes are answered for one image only."
    BODY_TOO_SLOW = "body_too_slow", "408", "The body stopped arriving, or arrives more slowly than the least rate."
    HEAD_TOO_SLOW = "head_too_slow", "408", "The head of the request did not arrive in time."
    CONFLICT = "conflict", "409", "The state of the resource does not allow this."
    KEY_NAME_TAKEN = "key_name_taken", "409", "An unrevoked API key of this name exists."
    TOO_MANY_KEYS = "too_many_keys", "409", "There are as many unrevoked API keys as are kept."
    LAST_ADMIN_KEY = "last_admin_key", "409", "No other usable API key has the scope `admin`."
    DATASET_NAME_TAKEN = "dataset_name_taken", "409", "A dataset of this name exists; `dataset_id` names it."
    DATASET_NOT_READY = "dataset_not_ready", "409", "The dataset has no images, or lacks some."
    DATASET_IN_USE = "dataset_in_use", "409", "A job works on the dataset."
    DATASET_GONE = "dataset_gone", "409", "The dataset was deleted."
    DATASET_UNREADABLE = "dataset_unreadable", "409", "None of the dataset's images can be read."
    DATASET_EMPTY = "dataset_empty", "409, 422", "The dataset has no images, or none to train on."
    DATASET_INCOMPLETE = "dataset_incomplete", "409", "A job could not generate all images."
    MODEL_NAME_TAKEN = "model_name_taken", "409", "A model of this name exists or is being trained."
    MODEL_BACKBONE_MISMATCH = (
        "model_backbone_mismatch",
        "409",
        "The model was trained on other backbone weights than those loaded.",
    )
    TRAINING_IMAGES_GONE = "training_images_gone", "409", "The images that the model was trained on are gone."
    FEATURES_NOT_CACHED = (
        "features_not_cached",
        "409",
        "The features of the model's training images are not cached; an evaluation on them computes them.",
    )
    MODEL_GONE = "model_gone", "409", "The model was deleted."
    MODEL_FAILED = "model_failed", "409", "A model of the node could not be loaded; /readyz has the reason."
    BACKBONE_CHANGED = "backbone_changed", "409", "Another backbone is loaded than when the job was accepted."
    PACK_CHANGED = (
        "pack_changed",
        "409",
        "The node has not the model that drew the dataset, or has other weights of it.",
    )
    TRAIN_JOB_UNFINISHED = "train_job_unfinished", "409", "The train job has not succeeded, so it has no report."
    JOB_NOT_FAILED = "job_not_failed", "409", "The job did not fail, so it cannot be retried."
    FILE_CHANGED = "file_changed", "409", "A file does not match its record."
    FILE_LOST = "file_lost", "410", "A stored file is gone, or does not match its record."
    IMAGE_FILE_MISSING = "image_file_missing", "410", "The image's file is gone; repair its dataset."
    IMAGE_FILE_DAMAGED = "image_file_damaged", "410", "The image's file is damaged; repair its dataset."
    MODEL_FILE_MISSING = "model_file_missing", "410", "The model's file is gone."
    MODEL_FILE_DAMAGED = "model_file_damaged", "410", "The model's file is damaged."
    PAYLOAD_TOO_LARGE = "payload_too_large", "413", "The request is larger than this route accepts."
    IMAGE_TOO_LARGE = "image_too_large", "413", "The image file is larger than the limit."
    TOO_MANY_PIXELS = "too_many_pixels", "413", "The image has more pixels than the limit."
    TOO_MANY_VALUES = "too_many_values", "413", "The JSON body has more values, members or escapes than the limit."
    UNSUPPORTED_MEDIA_TYPE = (
        "unsupported_media_type",
        "415",
        "The body's Content-Type is not one that this route reads.",
    )
    UNSUPPORTED_IMAGE = "unsupported_image", "415", "The file is not a PNG, JPEG or WebP image."
    RANGE_NOT_SATISFIABLE = "range_not_satisfiable", "416", "The range lies outside the file."
    HOST_NOT_ALLOWED = (
        "host_not_allowed",
        "421",
        "The node does not answer under this Host; FOXHOUND_ALLOWED_HOSTS allows names.",
    )
    INVALID_REQUEST = "invalid_request", "422", "The request is well-formed but invalid."
    MISSING = "missing", "422", "A required field or file is missing."
    UNKNOWN_FIELD = "unknown_field", "422", "A field does not exist."
    UNKNOWN_PARAMETER = "unknown_parameter", "422", "The route has no query parameter of this name."
    REPEATED_FIELD = "repeated_field", "422", "A form field is given twice."
    TOO_LONG = "too_long", "422", "A text is too long."
    TOO_SHORT = "too_short", "422", "A text is too short."
    TOO_MANY = "too_many", "422", "A list has too many items."
    TOO_FEW = "too_few", "422", "A list has too few items."
    TOO_SMALL = "too_small", "422", "A number is too small."
    TOO_LARGE = "too_large", "422", "A number is too large."
    NOT_FINITE = "not_finite", "422", "A number is not finite."
    TOO_MANY_FAULTS = "too_many_faults", "422", "The body has too many faults to list each of them."
    TEXT_EMPTY = "text_empty", "422", "A text has no visible character."
    TEXT_NOT_STORABLE = "text_not_storable", "422", "A text contains NUL or lone surrogates."
    BAD_RANGE = "bad_range", "422", "The minimum of a range is above its maximum."
    BAD_TIME = "bad_time", "422", "The text is not a time in RFC 3339 with an offset."
    BAD_BASE64 = "bad_base64", "422", "The text is not base64."
    FILE_EXPECTED = "file_expected", "422", "A form field that takes files contains a text."
    JSON_IN_FORM = "json_in_form", "422", "A form field contains a JSON array; repeat the field instead."
    ONE_IMAGE_SOURCE = "one_image_source", "422", "Exactly one source of images must be given."
    BAD_HEAD = "bad_head", "422", "The settings of a head exclude each other."
    FINE_TUNE_NOT_SUPPORTED = (
        "fine_tune_not_supported",
        "422",
        "The backbone, or the preset, cannot be fine-tuned.",
    )
    ONE_RECIPE = "one_recipe", "422", "A preset has its own head, views and optimizer."
    ONE_SOLVER = "one_solver", "422", "Only one of head and optimizer may be given."
    VALIDATION_EMPTY = "validation_empty", "422", "Validation images are needed, and no class has two training images."
    ONE_DATASET = "one_dataset", "422", "Exactly one of dataset_id and dataset must be given."
    SIZE_NOT_SUPPORTED = "size_not_supported", "422", "The loaded model does not draw this size."
    TOO_MANY_STEPS = "too_many_steps", "422", "There are more denoising steps than this node accepts."
    BAD_GUIDANCE_SCALE = "bad_guidance_scale", "422", "The guidance scale is neither a number nor a range."
    BAD_NUM_INFERENCE_STEPS = "bad_num_inference_steps", "422", "The number of steps is neither a number nor a range."
    UNSUPPORTED_NUM_INFERENCE_STEPS = (
        "unsupported_num_inference_steps",
        "422",
        "The noise scheduler cannot take this many steps.",
    )
    SPEED_NOT_OFFERED = "speed_not_offered", "422", "The loaded model does not have this speed."
    GUIDANCE_NOT_SUPPORTED = "guidance_not_supported", "422", "This speed has its guidance inside."
    BEST_OF_TOO_SMALL = "best_of_too_small", "422", "There are fewer candidates than images."
    CLIP_SKIP_NOT_SUPPORTED = "clip_skip_not_supported", "422", "The text encoder has no such layer to stop at."
    TIMESTEPS_NOT_SUPPORTED = "timesteps_not_supported", "422", "The noise scheduler has its own timesteps."
    BAD_TIMESTEPS = "bad_timesteps", "422", "Each timestep must be below the one before it."
    ONE_SCHEDULE = "one_schedule", "422", "The settings of the timesteps contradict each other."
    BAD_GUIDANCE_INTERVAL = "bad_guidance_interval", "422", "The interval of the guidance is empty."
    UNKNOWN_NOISE_SCHEDULER = "unknown_noise_scheduler", "422", "There is no noise scheduler of this name."
    WORK_TOO_LARGE = "work_too_large", "422", "Images x steps x width x height is above the limit."
    TOO_MANY_IMAGES = "too_many_images", "422", "There are more images than the limit."
    SEED_TOO_LARGE = "seed_too_large", "422", "The seed of the last image would be above 2^53 - 1."
    B64_JSON_NOT_WITH_RESPOND_ASYNC = (
        "b64_json_not_with_respond_async",
        "422",
        "Images of a job are fetched by their URL.",
    )
    CORRUPT_IMAGE = "corrupt_image", "422", "The image file is damaged or cut off."
    TOO_ELONGATED = "too_elongated", "422", "One side of the image is more than 100 times the other."
    TOO_MANY_CHUNKS = "too_many_chunks", "422", "The image file consists of too many pieces."
    IMAGE_TOO_SLOW = "image_too_slow", "422", "The image takes too long to decode."
    DUPLICATE_IMAGE = "duplicate_image", "422", "The dataset has this image already."
    DUPLICATE_LABELS = "duplicate_labels", "422", "Two labels are the same."
    DUPLICATE_CLASSES = "duplicate_classes", "422", "Two class names are the same."
    CLASS_NOT_FOUND = "class_not_found", "422", "The dataset has no class of this name."
    CLASSES_UNKNOWN = "classes_unknown", "422", "The dataset has classes that the model does not know."
    SPLIT_EMPTY = "split_empty", "422", "The dataset has no images in this split."
    CLASS_WITHOUT_IMAGES = "class_without_images", "422", "A class has no training images."
    INIT_IMAGE_MISSING = "init_image_missing", "422", "This field needs an `init_image`, or a mask, that is not given."
    BAD_STRENGTH = "bad_strength", "422", "The strength is neither a number nor a range that is accepted."
    SHOT_HELD_OUT = "shot_held_out", "422", "A shot is in the split validation or test of a dataset."
    DUPLICATE_SHOTS = "duplicate_shots", "422", "An image is a shot twice."
    MASK_SIZE_DIFFERS = "mask_size_differs", "422", "The mask does not have the size of the initial image."
    MASK_MISSING = "mask_missing", "422", "The model repaints parts of pictures, and there is no mask."
    STRENGTH_TOO_LOW = "strength_too_low", "422", "The strength times the number of steps is less than one step."
    IMAGE_DIFFERS = "image_differs", "422", "The image does not have the SHA-256 that the request names."
    ANIMATED_IMAGE = "animated_image", "422", "The image has several frames."
    IMAGE_NOT_FOUND = "image_not_found", "409, 422", "There is no image with this id."
    BAD_MODEL_IDS = "bad_model_ids", "422", "The ids are not 2 to 10 different ids."
    DATASET_NOT_FOUND = "dataset_not_found", "422", "There is no dataset with this id."
    MODEL_NOT_FOUND = "model_not_found", "422", "There is no model with this id or name."
    LORA_NOT_FOUND = "lora_not_found", "422", "The node has no usable LoRA of this name."
    EMBEDDING_NOT_FOUND = "embedding_not_found", "422", "The node has no usable embedding of this name."
    DUPLICATE_ADAPTERS = "duplicate_adapters", "422", "A LoRA or an embedding is named twice."
    LORAS_TOO_LARGE = "loras_too_large", "422", "The weights that the LoRAs change exceed FOXHOUND_LORAS_MB."
    BACKBONE_NOT_FOUND = "backbone_not_found", "422", "The node has no backbone of this name."
    BAD_DATASET_NAME = "bad_dataset_name", "422", "The name has the form of an id."
    BAD_MODEL_NAME = "bad_model_name", "422", "The name has the form of an id."
    NOTHING_TO_MAKE = "nothing_to_make", "422", "The request asks for no images."
    RECIPE_TOO_LARGE = (
        "recipe_too_large",
        "422",
        "The classes and variables of a recipe have more than 2,000,000 bytes.",
    )
    BAD_TEMPLATE = "bad_template", "422", "A brace in a prompt stands alone."
    UNKNOWN_VARIABLE = "unknown_variable", "422", "A prompt uses a variable that is not given."
    UNUSED_VARIABLE = "unused_variable", "422", "No prompt uses a variable."
    TOO_MANY_COMBINATIONS = "too_many_combinations", "422", "The variables of a prompt have too many combinations."
    PROMPT_MAY_BE_EMPTY = "prompt_may_be_empty", "422", "The variables of a prompt may leave it empty."
    PROMPT_TOO_LONG = "prompt_too_long", "422", "The prompt is too long."
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused", "422", "The key was used with another request."
    COMBINED_BACKBONES = (
        "combined_backbones",
        "422",
        "The model works on several backbones, and this needs a model on one.",
    )
    NOT_EXPORTABLE = "not_exportable", "422", "The model has no form in this format."
    EXPLAINS_ONE_IMAGE = "explains_one_image", "422", "Several images cannot be explained in one request."
    NO_TRAINING_IMAGES = "no_training_images", "422", "Only a model that was trained here has training images."
    NOTHING_TO_EXPLAIN = "nothing_to_explain", "422", "The backbone has no head of its own that could be explained."
    DIVERGED = "diverged", "422", "The loss of a training is not finite any more."
    HEAD_TOO_LARGE = "head_too_large", "431", "The head of the request is larger than 64 KiB."
    RATE_LIMITED = (
        "rate_limited",
        "429",
        "The caller exceeds its requests a minute or at once, or too many large requests came from its address.",
    )
    QUOTA_EXCEEDED = "quota_exceeded", "429", "The caller has used up its pixel-steps of the day or its stored bytes."
    INTERNAL_ERROR = "internal_error", "500", "The service failed; its log has the reason under the request id."
    REQUEST_REFUSED = "request_refused", "4xx", "The request was refused by the framework."
    INFERENCE_FAILED = "inference_failed", "500", "The model failed on this request."
    EXPORT_FAILED = "export_failed", "500", "The exported file could not be made, or computes something else."
    JOB_FAILED = "job_failed", "500", "The job could not be completed."
    ATTEMPTS_EXHAUSTED = "attempts_exhausted", "500", "The job was given up after its worker ended three times."
    NOT_IMPLEMENTED = "not_implemented", "501", "The transfer coding is not implemented."
    QUEUE_FULL = "queue_full", "503", "The service is at its capacity; the request was not taken."
    MODEL_NOT_READY = "model_not_ready", "503", "The model that this request needs is not loaded."
    EXPORT_TIMED_OUT = "export_timed_out", "503", "The export took too long and was ended."
    NOT_READY = "not_ready", "503", "The service is starting, or a model could not be loaded."
    UNAVAILABLE = "unavailable", "503", "The service cannot do this at the moment."
    STORAGE_UNAVAILABLE = "storage_unavailable", "503", "The storage cannot be used at the moment."
    DATABASE_UNAVAILABLE = "database_unavailable", "503", "The database does not answer."
    TOO_MANY_STREAMS = "too_many_streams", "503", "Too many event streams are open."
    TOO_MANY_CONNECTIONS = "too_many_connections", "503", "Too many connections are open."
    STORAGE_FULL = "storage_full", "507", "There is no room left to store the result."


# Each code has a page below; a problem's `type` is the path of its page.
ERROR_PAGES = "/docs/errors"


def problem_type(code: str) -> str:
    """Return the `type` of problems with a code (RFC 9457): a URI reference that opens the code's page."""
    return f"{ERROR_PAGES}/{code}"
