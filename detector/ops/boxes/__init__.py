"""Rotated overlap of boxes, non-maximum suppression, points in boxes."""

from detector.ops.boxes.op import box_of_point, iou_3d, iou_bev, nms, points_in_boxes

__all__ = ["box_of_point", "iou_3d", "iou_bev", "nms", "points_in_boxes"]
