# Every library that the project links, as imported targets.
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(GTest REQUIRED)
find_package(Protobuf REQUIRED)
find_package(gRPC CONFIG REQUIRED)
find_package(CURL REQUIRED)
find_package(LibArchive REQUIRED)
foreach(module sqlite3 libdeflate libzip libzstd libexif libjpeg spng libwebp libwebpdemux tomlplusplus)
  pkg_check_modules(${module} REQUIRED IMPORTED_TARGET ${module})
endforeach()

# The Python environment that tools/setup/setup.sh makes carries both engines' libraries.
set(NDPIPE_PYTHON ${CMAKE_SOURCE_DIR}/.venv/bin/python CACHE FILEPATH "Python with openvino and torch")
execute_process(
  COMMAND ${NDPIPE_PYTHON} -c "import sysconfig; print(sysconfig.get_paths()['platlib'])"
  OUTPUT_VARIABLE NDPIPE_SITE_PACKAGES OUTPUT_STRIP_TRAILING_WHITESPACE)

# OpenVINO is optional: a GPU host may have none.
find_package(OpenVINO CONFIG QUIET PATHS ${NDPIPE_SITE_PACKAGES}/openvino/cmake)
if(OpenVINO_FOUND)
  message(STATUS "OpenVINO ${OpenVINO_VERSION}: the CPU engine is built")
else()
  message(WARNING "OpenVINO was not found: the CPU engine is not built")
endif()

include(LibTorch)
