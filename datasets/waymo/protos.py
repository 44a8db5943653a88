"""The messages of the Waymo Open Dataset that we read and write, declared from their published
field numbers.

Only fields that are used here are declared; others are kept as unknown fields. Enums are declared
as int32, which is the same on the wire and keeps numbers that a later release adds. The messages
live in a pool of their own, beside the official package's where both are installed.

Source of names and numbers: `label.proto`, `dataset.proto`, `protos/metrics.proto` and
`protos/submission.proto` of github.com/waymo-research/waymo-open-dataset (99a4cb3).
"""

from __future__ import annotations

from functools import cache

from detector.errors import InputError

PACKAGE = "focal3d.waymo"

# Message -> its fields as `name:type=number`; `[]` marks a repeated field, `[packed]` one that is
# packed on the wire, `?x` the default.
MESSAGES = {
    "Box": (
        "center_x:double=1 center_y:double=2 center_z:double=3 width:double=4 length:double=5 "
        "height:double=6 heading:double=7"
    ),
    "Metadata": (
        "speed_x:double=1 speed_y:double=2 accel_x:double=3 accel_y:double=4 speed_z:double=5 "
        "accel_z:double=6"
    ),
    "Label": (
        "box:Box=1 metadata:Metadata=2 type:int32=3 id:string=4 "
        "detection_difficulty_level:int32=5 tracking_difficulty_level:int32=6 "
        "num_lidar_points_in_box:int32=7 most_visible_camera_name:string=11 "
        "camera_synced_box:Box=12 num_top_lidar_points_in_box:int32=13"
    ),
    "Polygon2dProto": "x:double[]=1 y:double[]=2 id:string=3",
    "MatrixShape": "dims:int32[]=1",
    "MatrixFloat": "data:float[packed]=1 shape:MatrixShape=2",
    "MatrixInt32": "data:int32[packed]=1 shape:MatrixShape=2",
    "Transform": "transform:double[]=1",
    "Velocity": "v_x:float=1 v_y:float=2 v_z:float=3 w_x:double=4 w_y:double=5 w_z:double=6",
    "CameraCalibration": (
        "name:int32=1 intrinsic:double[]=2 extrinsic:Transform=3 width:int32=4 height:int32=5 "
        "rolling_shutter_direction:int32=6"
    ),
    "LaserCalibration": (
        "name:int32=1 beam_inclinations:double[]=2 beam_inclination_min:double=3 "
        "beam_inclination_max:double=4 extrinsic:Transform=5"
    ),
    "Stats": "time_of_day:string=2 location:string=3 weather:string=4",
    "Context": (
        "name:string=1 camera_calibrations:CameraCalibration[]=2 "
        "laser_calibrations:LaserCalibration[]=3 stats:Stats=4"
    ),
    "RangeImage": (
        "range_image_compressed:bytes=2 camera_projection_compressed:bytes=3 "
        "range_image_pose_compressed:bytes=4 range_image_flow_compressed:bytes=5 "
        "segmentation_label_compressed:bytes=6"
    ),
    "Laser": "name:int32=1 ri_return1:RangeImage=2 ri_return2:RangeImage=3",
    "CameraImage": (
        "name:int32=1 image:bytes=2 pose:Transform=3 velocity:Velocity=4 pose_timestamp:double=5 "
        "shutter:double=6 camera_trigger_time:double=7 camera_readout_done_time:double=8"
    ),
    "CameraLabels": "name:int32=1 labels:Label[]=2",
    "Frame": (
        "context:Context=1 timestamp_micros:int64=2 pose:Transform=3 images:CameraImage[]=4 "
        "lasers:Laser[]=5 laser_labels:Label[]=6 no_label_zones:Polygon2dProto[]=7 "
        "camera_labels:CameraLabels[]=8 projected_lidar_labels:CameraLabels[]=9"
    ),
    "Object": (
        "object:Label=1 score:float=2?1 overlap_with_nlz:bool=3 context_name:string=4 "
        "frame_timestamp_micros:int64=5 camera_name:int32=6"
    ),
    "NoLabelZoneObject": (
        "zone:Polygon2dProto=1 context_name:string=2 frame_timestamp_micros:int64=3"
    ),
    "Objects": "objects:Object[]=1 no_label_zone_objects:NoLabelZoneObject[]=2",
    "Submission": (
        "task:int32=1 unique_method_name:string=2 authors:string[]=3 affiliation:string=4 "
        "description:string=5 method_link:string=6 number_past_frames_exclude_current:int32=9 "
        "number_future_frames_exclude_current:int32=10 inference_results:Objects=11 "
        "sensor_type:int32=12 account_name:string=13 object_types:int32[]=14 "
        "latency_second:float=15"
    ),
}


@cache
def message_class(name: str) -> type:
    """The protobuf class of one of MESSAGES.

    Raises:
        InputError: protobuf is not installed.
    """
    pool = _pool()
    from google.protobuf import message_factory

    descriptor = pool.FindMessageTypeByName(f"{PACKAGE}.{name}")
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    return message_factory.MessageFactory(pool).GetPrototype(descriptor)  # protobuf before 4.22


@cache
def _pool():
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool
    except ImportError as error:
        raise InputError(
            f"Waymo's records need protobuf, which can't be imported ({error}); install it with "
            f"`pip install 'focal3d[waymo]'`"
        ) from error
    file = descriptor_pb2.FileDescriptorProto(
        name="focal3d/waymo.proto", package=PACKAGE, syntax="proto2"
    )
    field_type = descriptor_pb2.FieldDescriptorProto
    for message_name, fields in MESSAGES.items():
        message = file.message_type.add(name=message_name)
        for text in fields.split():
            name, _, rest = text.partition(":")
            kind, _, number = rest.partition("=")
            number, _, default = number.partition("?")
            kind, _, repeat = kind.partition("[")
            field = message.field.add(name=name, number=int(number))
            field.label = field_type.LABEL_REPEATED if repeat else field_type.LABEL_OPTIONAL
            if kind in MESSAGES:
                field.type = field_type.TYPE_MESSAGE
                field.type_name = f".{PACKAGE}.{kind}"
            else:
                field.type = getattr(field_type, f"TYPE_{kind.upper()}")
            if repeat == "packed]":
                field.options.packed = True
            if default:
                field.default_value = default
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool
