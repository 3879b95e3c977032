/* Operators with subgraphs: rows only. The executor runs the subgraphs. */
#include "ops/kernel.h"

static const struct op rows[] = {
	{
		.name = "If", .since = 1,
		.doc = "The outputs of one of two graphs, as the condition says.",
		.in = IN({ "cond", T }),
		.out = OUT({ "outputs", T1, FLOW_NONE, VARIADIC | HETERO, .kinds = TENSORS | SEQUENCES | OPTIONALS }),
		.attr = ATTRS({ .name = "then_branch", .kind = ATTR_GRAPH, .flags = REQUIRED },
		              { .name = "else_branch", .kind = ATTR_GRAPH, .flags = REQUIRED }),
		.types = { [T] = SET(BOOL), [T1] = STORED },
		.agree = AGREE_ROUND, .flags = OP_CONTROL,
	},
	{
		.name = "Loop", .since = 1,
		.doc = "A graph run again and again on the values it carried over, at most M times and while its condition holds; then "
		       "the values carried, and for each further output of the graph all its values, stacked.",
		.in = IN({ "M", T, FLOW_NONE, OPTIONAL }, { "cond", T1, FLOW_NONE, OPTIONAL },
		         { "v_initial", T2, FLOW_KINKED, VARIADIC | HETERO | OPTIONAL, .kinds = TENSORS | SEQUENCES | OPTIONALS }),
		.out = OUT({ "v_final_and_scan_outputs", T2, FLOW_NONE, VARIADIC | HETERO, .kinds = TENSORS | SEQUENCES | OPTIONALS }),
		.attr = ATTRS({ .name = "body", .kind = ATTR_GRAPH, .flags = REQUIRED }),
		.types = { [T] = SET(INT64), [T1] = SET(BOOL), [T2] = STORED },
		.agree = AGREE_ROUND, .flags = OP_CONTROL,
	},
	{
		.name = "Scan", .since = 9,
		.doc = "A graph run once for each slice of the last `num_scan_inputs` inputs on the values it carried over from the slice "
		       "before; then the values carried and the further outputs, stacked.",
		.in = IN({ "initial_state_and_scan_inputs", T, FLOW_KINKED, VARIADIC | HETERO }),
		.out = OUT({ "final_state_and_scan_outputs", T, FLOW_NONE, VARIADIC | HETERO }),
		.attr = ATTRS({ .name = "body", .kind = ATTR_GRAPH, .flags = REQUIRED },
		              { .name = "num_scan_inputs", .kind = ATTR_INT, .flags = REQUIRED, .lo = 1, .hi = INT32_MAX },
		              { .name = "scan_input_axes", .kind = ATTR_INTS, .flags = OPTIONAL },
		              { .name = "scan_input_directions", .kind = ATTR_INTS, .flags = OPTIONAL, .lo = 0, .hi = 1 },
		              { .name = "scan_output_axes", .kind = ATTR_INTS, .flags = OPTIONAL },
		              { .name = "scan_output_directions", .kind = ATTR_INTS, .flags = OPTIONAL, .lo = 0, .hi = 1 }),
		.types = { [T] = STORED },
		.agree = AGREE_ROUND, .flags = OP_CONTROL,
	},
	{
		.name = "Scan", .since = 8,
		.in = IN({ "sequence_lens", T, FLOW_NONE, OPTIONAL },
		         { "initial_state_and_scan_inputs", T1, FLOW_KINKED, VARIADIC | HETERO }),
		.out = OUT({ "final_state_and_scan_outputs", T1, FLOW_NONE, VARIADIC | HETERO }),
		.attr = ATTRS({ .name = "body", .kind = ATTR_GRAPH, .flags = REQUIRED },
		              { .name = "directions", .kind = ATTR_INTS, .flags = OPTIONAL, .lo = 0, .hi = 1 },
		              { .name = "num_scan_inputs", .kind = ATTR_INT, .flags = REQUIRED, .lo = 1, .hi = INT32_MAX }),
		.types = { [T] = SET(INT64), [T1] = STORED },
		.flags = OP_CONTROL | OP_OLD,
	},
};

const struct op_family control_ops = FAMILY("control", rows);
