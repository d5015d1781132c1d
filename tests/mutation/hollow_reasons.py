"""Which tests may pass whatever the ops compute, with what they look at instead."""

_TESTS = {
    "second derivatives and tangents, which Python composes of the inputs and of no result": """
        tests/autograd/test_derivatives_of_targets.py::test_half_types_are_rounded_once
        tests/autograd/test_magnitudes.py::test_rows_that_are_nan
        tests/autograd/test_probability_target_transforms.py::test_transforms
        tests/autograd/test_transforms.py::test_derivatives_of_elements_that_are_ignored
        tests/autograd/test_transforms.py::test_forward_mode_nested
        tests/autograd/test_transforms.py::test_second_derivatives
        tests/losses/sigmoid/test_edges.py::test_second_derivatives_of_classes_and_ignored_elements
        tests/losses/sigmoid/test_edges.py::test_transforms_in_all_arguments
    """,
    "errors, of checks and of autograd": """
        tests/autograd/test_gradient_in_forward.py::test_change_before_backward_is_noticed
        tests/autograd/test_gradient_in_forward.py::test_it_has_no_derivative
        tests/autograd/test_gradient_in_forward.py::test_mean_of_float16_needs_a_loss_scale
        tests/autograd/test_log_softmax_transforms.py::test_output_changed_in_place_before_backward_is_noticed
        tests/losses/softmax/test_edges.py::test_input_changed_in_place_before_backward_is_noticed
        tests/losses/test_company.py::test_another_use_of_logits_that_are_overwritten
        tests/losses/test_misuse.py::test_overwritten_logits_refuse_to_be_read
        tests/losses/test_op_options.py::test_backward_of_class_probabilities_checks_what_it_gets_from_forward
        tests/losses/test_op_options.py::test_factors_and_batches_that_do_not_fit
        tests/losses/test_ops.py::test_zeros_without_memory
    """,
    "the graph: what requires grad, what is noticed, and for how long something is kept": """
        tests/autograd/test_gradient_in_forward.py::test_graph_that_is_dropped_drops_the_gradient
        tests/autograd/test_log_softmax_transforms.py::test_no_graph_where_none_is_needed
        tests/autograd/test_modes.py::test_saved_tensors_are_freed
        tests/autograd/test_transforms.py::test_no_graph_where_none_is_needed
        tests/losses/test_ops.py::test_writing_is_noticed_where_memory_has_negatives
    """,
    "dtypes, shapes and strides, the class of a tensor, or whether there is one": """
        tests/losses/softmax/test_class_dim.py::test_memory_format
        tests/losses/test_misuse.py::test_logits_that_are_not_overwritten_can_be_read
        tests/losses/test_misuse.py::test_overwritten_logits_that_get_values_are_a_tensor
        tests/losses/test_op_options.py::test_a_dtype_that_is_asked_for_under_autocast
        tests/losses/test_op_options.py::test_gradients_have_the_dtype_of_their_tensor_already_in_the_op
        tests/losses/test_op_options.py::test_statistics_that_are_not_kept_are_not_made
        tests/losses/test_op_options.py::test_statistics_that_no_backward_needs_are_not_made
        tests/losses/test_op_options.py::test_statistics_that_no_backward_of_a_script_needs_are_not_made
        tests/losses/test_without_data.py::test_results_are_those_of_tensors_with_data
        tests/losses/test_without_data.py::test_second_derivatives_are_those_of_tensors_with_data
    """,
    "memory: how much there is, and what must not be written to": """
        tests/losses/sigmoid/test_layouts.py::test_gradients_of_weights_make_nothing_else
        tests/losses/softmax/test_peers.py::test_logits_are_left_alone_unless_asked
        tests/losses/test_torch_samples.py::test_tensors_that_share_their_memory_until_written
    """,
    "shapes: of these cases there are no elements": """
        tests/autograd/test_derivatives_of_targets.py::test_hardly_any_classes
        tests/autograd/test_transforms.py::test_hessians_of_nothing
        tests/autograd/test_transforms.py::test_tangents_of_nothing
        tests/losses/sigmoid/test_edges.py::test_empty
        tests/losses/softmax/test_edges.py::test_empty_batch
        tests/losses/softmax/test_log_softmax.py::test_empty
        tests/losses/softmax/test_probability_targets.py::test_empty_batch
        tests/losses/softmax/test_scale_gradient.py::test_product
        tests/losses/test_op_options.py::test_batch_of_no_losses
        tests/losses/test_company.py::test_factors_of_rows_for_a_gradient_that_is_ready
    """,
    "calls: how many": """
        tests/autograd/test_transforms.py::test_vmap_is_one_call_of_an_op
    """,
    "a warning": """
        tests/losses/test_signatures.py::test_warning_of_an_implicit_dim_points_to_the_caller
    """,
    "a wrong result that is noticed, as one of nothing is, too": """
        tests/benchmarks/test_benchmarks.py::test_wrong_provider_is_not_timed
    """,
}
REASONS = {test: reason for reason, tests in _TESTS.items() for test in tests.split()}
