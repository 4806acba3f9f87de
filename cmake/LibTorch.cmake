# LibTorch from the torch wheel as one target, ndpipe_libtorch.
#
# Not by find_package(Torch): that needs the CUDA toolkit as soon as the wheel was built for CUDA, and defines a broken
# protobuf target. Code that only trains on the CPU needs two libraries and a header folder, the same in every wheel.
set(NDPIPE_TORCH_DIR "${NDPIPE_SITE_PACKAGES}/torch" CACHE PATH "the torch folder of a Python environment")
if(NOT EXISTS ${NDPIPE_TORCH_DIR}/lib/libtorch_cpu.so)
  message(FATAL_ERROR "LibTorch was not found in ${NDPIPE_TORCH_DIR}: run tools/setup/setup.sh, or set NDPIPE_TORCH_DIR")
endif()

add_library(ndpipe_libtorch INTERFACE)
target_include_directories(ndpipe_libtorch SYSTEM INTERFACE
  ${NDPIPE_TORCH_DIR}/include ${NDPIPE_TORCH_DIR}/include/torch/csrc/api/include)
target_link_libraries(ndpipe_libtorch INTERFACE
  ${NDPIPE_TORCH_DIR}/lib/libtorch_cpu.so ${NDPIPE_TORCH_DIR}/lib/libc10.so)
# A CUDA wheel's libtorch_cpu.so refers to CUDA libraries that it finds itself, by its own run path.
target_link_options(ndpipe_libtorch INTERFACE -Wl,--allow-shlib-undefined)
