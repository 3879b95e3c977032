# Sources by layer, in the order of the design: ops <- graph <- runtime <- train <- converter <- validate <- calibrate <- cli.

layer(ops
	ops/base/arena.c
	ops/base/err.c
	ops/base/dtype.c
	ops/base/dim.c
	ops/base/shape.c
	ops/base/str.c
	ops/base/utf8.c
	ops/base/map.c
	ops/base/idmap.c
	ops/base/thread.c
	ops/table.c ops/since.c ops/function.c
	ops/shapes.c
	ops/eval.c
	ops/kernel.c
	ops/body.c ops/body_einsum.c ops/body_sample.c
	ops/grad.c ops/grad_window.c
	ops/unary.c
	ops/binary.c
	ops/logic.c
	ops/reduce.c
	ops/matmul.c
	ops/norm.c
	ops/layout.c
	ops/resize.c
	ops/sample.c
	ops/vision.c
	ops/index.c
	ops/window.c
	ops/conv.c
	ops/pool.c
	ops/quant.c
	ops/recurrent.c
	ops/loss.c
	ops/control.c
	ops/sequence.c
	ops/mlmap.c
	ops/absent.c
	ops/attention.c
	ops/linear.c
	ops/linear_grad.c
	ops/glu.c
	ops/legacy.c
	ops/contrib_attention.c
	ops/contrib_norm.c
	ops/signal.c
	ops/random.c
	ops/training.c
	ops/regex.c ops/strings.c
	ops/image.c ops/image_plain.c
	ops/contrib.c
	ops/contrib_dense.c
	ops/contrib_moe.c
	ops/contrib_tokens.c
	ops/contrib_nbits.c
	ops/contrib_quant.c
	ops/ml.c
	ops/svm.c
	ops/trees.c
	ops/fast/level.c
	ops/fast/table.c
	ops/fast/mixed.c
	ops/blas.c)
target_link_libraries(linnet_ops PUBLIC Threads::Threads PkgConfig::OPENBLAS PkgConfig::LAPACKE PkgConfig::PCRE2 ${SLEEF_LIBRARY} m)

# Formats of images that need a library; each is left out when that is missing or the format is turned off.
function(image_format name file package)
	option(LINNET_${name} "decode ${name} images, if there is ${package}" ON)
	if(LINNET_${name})
		pkg_check_modules(IMAGE_${name} IMPORTED_TARGET ${package})
	endif()
	if(NOT LINNET_${name} OR NOT IMAGE_${name}_FOUND)
		return()
	endif()
	target_sources(linnet_ops PRIVATE ${file})
	target_compile_definitions(linnet_ops PRIVATE LINNET_HAVE_${name})
	target_link_libraries(linnet_ops PUBLIC PkgConfig::IMAGE_${name})
	set(IMAGE_TARGETS ${IMAGE_TARGETS} PkgConfig::IMAGE_${name} PARENT_SCOPE)
	string(REGEX REPLACE ">=" " >= " package "${package}")
	set(IMAGE_PACKAGES "${IMAGE_PACKAGES} ${package}" PARENT_SCOPE)
	set(IMAGE_LIBRARIES "${IMAGE_LIBRARIES};${IMAGE_${name}_LIBRARIES}" PARENT_SCOPE)
endfunction()
image_format(JPEG ops/image_jpeg.c libjpeg)
image_format(PNG ops/image_png.c libpng)
image_format(TIFF ops/image_tiff.c libtiff-4>=4.5)
image_format(WEBP ops/image_webp.c libwebp)
image_format(JP2 ops/image_jp2.c libopenjp2)

# Fast kernels: the same sources once for each instruction set; level.c chooses at start.
set(FAST_SOURCES
	ops/fast/matmul.c
	ops/fast/attention.c
	ops/fast/rows.c
	ops/fast/elementwise.c
	ops/fast/gather.c
	ops/fast/recurrent.c
	ops/fast/conv.c
	ops/fast/einsum.c
	ops/fast/index.c
	ops/fast/pool.c
	ops/fast/integer.c
	ops/fast/linear.c
	ops/fast/causal.c
	ops/fast/linear_grad.c
	ops/fast/nbits.c
	ops/fast/quant.c
	ops/fast/resize.c
	ops/fast/transpose.c)
function(fast_level level)
	add_library(linnet_fast_${level} OBJECT ${FAST_SOURCES})
	target_include_directories(linnet_fast_${level} PRIVATE ${CMAKE_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/include)
	target_compile_definitions(linnet_fast_${level} PRIVATE LEVEL=${level})
	linnet_target(linnet_fast_${level})
	target_compile_options(linnet_fast_${level} PRIVATE -O3 -fno-trapping-math -ffp-contract=fast ${ARGN})
	target_sources(linnet_ops PRIVATE $<TARGET_OBJECTS:linnet_fast_${level}>)
	set(FAST_TARGETS ${FAST_TARGETS} linnet_fast_${level} PARENT_SCOPE)
endfunction()
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
	fast_level(base -march=x86-64-v2)
	fast_level(avx2 -march=x86-64-v3)
	fast_level(avx512 -march=x86-64-v4 -mavx512vnni -mprefer-vector-width=512)
	set_source_files_properties(ops/fast/mixed.c PROPERTIES COMPILE_OPTIONS "-O3;-march=x86-64-v4;-mavx512bf16;-mprefer-vector-width=512")
else()
	fast_level(base)
endif()

layer(graph
	graph/graph.c
	graph/patch.c
	graph/pass.c
	graph/uses.c
	graph/rewrite.c
	graph/extract.c
	graph/precision.c
	graph/canon.c
	graph/mask.c
	graph/sample.c
	graph/probe.c
	graph/narrow.c
	graph/region.c
	graph/recognise.c
	graph/bend.c
	graph/experts.c
	graph/why.c
	graph/blocks.c
	graph/template.c graph/rule.c
	graph/model.c
	graph/file.c
	graph/wire.c
	graph/sha1.c
	graph/proto_tensor.c
	graph/proto_value.c
	graph/proto.c
	graph/import.c
	graph/export.c
	graph/lower.c
	graph/text_parse.c
	graph/text_print.c
	graph/infer.c
	graph/verify.c
	graph/passes/tidy.c
	graph/passes/ort.c
	graph/passes/fold.c
	graph/passes/share.c
	graph/passes/norm.c
	graph/passes/batch.c
	graph/passes/causal.c
	graph/passes/activate.c
	graph/passes/rope.c
	graph/passes/scores.c
	graph/passes/attend.c
	graph/passes/glu.c
	graph/passes/recur.c
	graph/passes/linear.c
	graph/passes/grad.c)
target_link_libraries(linnet_graph PUBLIC linnet_ops linnet_onnx)

layer(runtime
	runtime/memory.c
	runtime/plan.c runtime/weights.c
	runtime/run.c
	runtime/control.c runtime/session.c
	runtime/zip.c runtime/npy.c runtime/data.c)
target_link_libraries(linnet_runtime PUBLIC linnet_graph ZLIB::ZLIB)

layer(train
	train/data.c train/step.c train/train.c)
target_link_libraries(linnet_train PUBLIC linnet_runtime)

layer(converter
	converter/mechanisms.c converter/build.c converter/recur.c
	converter/maps.c converter/linear.c
	converter/gates.c converter/delta.c converter/hybrid.c
	converter/carry.c converter/microsoft.c converter/source.c converter/step.c
	converter/request.c converter/convert.c)
target_link_libraries(linnet_converter PUBLIC linnet_train)

layer(validate
	validate/runner.c
	validate/gen.c validate/gen_op.c
	validate/compare.c
	validate/locate.c
	validate/pair.c
	validate/certify.c
	validate/agree.c validate/card.c
	validate/generate.c
	validate/lm.c
	validate/lm_ports.c
	validate/tokenizer.c)
target_link_libraries(linnet_validate PUBLIC linnet_converter)

layer(calibrate
	calibrate/recipes.c calibrate/graphs.c calibrate/fit.c calibrate/measure.c calibrate/calibrate.c calibrate/auto.c calibrate/card.c)
target_link_libraries(linnet_calibrate PUBLIC linnet_validate PkgConfig::JANSSON)

# The library: the public header's functions over all layers, in one archive and one shared object.
layer(api
	api/api.c)
target_compile_definitions(linnet_api PRIVATE LINNET_VERSION="${PROJECT_VERSION}")
target_link_libraries(linnet_api PUBLIC linnet_calibrate)

# The program.
add_executable(linnet_cli
	cli/main.c
	cli/help.c
	cli/term.c
	cli/model.c
	cli/check.c
	cli/show.c
	cli/why.c
	cli/blocks.c
	cli/draw.c cli/page.c cli/curve.c
	cli/convert.c cli/calibrate.c cli/auto.c
	cli/grad.c cli/train.c cli/mpi.c
	cli/again.c
	cli/inputs.c
	cli/run.c
	cli/generate.c
	cli/validate.c
	cli/test.c
	cli/ops.c
	cli/passes.c)
set_target_properties(linnet_cli PROPERTIES OUTPUT_NAME linnet)
target_compile_definitions(linnet_cli PRIVATE LINNET_VERSION="${PROJECT_VERSION}" _DEFAULT_SOURCE)
target_link_libraries(linnet_cli PRIVATE linnet_calibrate)
linnet_target(linnet_cli)

# Training over several processes: the program's alone, so the library stays without MPI.
option(LINNET_MPI "training over several processes, if there is MPI" ON)
if(LINNET_MPI)
	find_package(MPI QUIET COMPONENTS C)
endif()
if(MPI_C_FOUND)
	target_compile_definitions(linnet_cli PRIVATE LINNET_HAVE_MPI)
	target_link_libraries(linnet_cli PRIVATE MPI::MPI_C)
else()
	message(STATUS "without MPI: linnet train --mpi is not built")
endif()

include(cmake/install.cmake)

if(BUILD_TESTING)
	add_subdirectory(tests)
endif()


add_subdirectory(bench)
