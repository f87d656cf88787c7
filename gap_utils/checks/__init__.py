"""Feedback on the exercises: one check for each, a file for each lesson."""

from gap_utils.checks.lesson_00 import check_numbers_per_map
from gap_utils.checks.lesson_01 import (
    check_gap,
    check_gap_after_change,
    check_gap_from_windows,
    check_max_pool,
    check_min_pool,
    check_output_size,
)
from gap_utils.checks.lesson_02 import (
    check_flatten_parameters,
    check_gap_head,
    check_keras_to_torch,
)
from gap_utils.checks.lesson_03 import (
    check_any_size_network,
    check_pool_any_axes,
    check_pool_any_batch,
    check_pool_any_size,
    check_pool_channels_last,
    check_pool_then_linear,
)
from gap_utils.checks.lesson_04 import (
    check_accuracy,
    check_head_claims,
    check_loss_floor,
    check_mended_loss,
)
from gap_utils.checks.lesson_05 import (
    check_canvas_sizes,
    check_gmp_gradient,
    check_shift_step,
    check_supported_claims,
)
from gap_utils.checks.lesson_06 import (
    check_halving_layer,
    check_maps_of,
    check_winning_maps,
)
from gap_utils.checks.lesson_07 import (
    check_cam,
    check_cam_families,
    check_iou,
    check_max_counterexample,
)
from gap_utils.checks.lesson_08 import (
    check_features_of,
    check_gap_locations,
    check_mean_of_patches,
    check_new_head,
    check_single_batches,
)
from gap_utils.checks.lesson_09 import (
    check_gap_twins,
    check_gem,
    check_masked_mean,
    check_squeeze_excitation,
)
