# ndpipe_library(NAME SOURCES ... LINK ...): the static library ndpipe_NAME of the folder it stands in.
function(ndpipe_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
  add_library(ndpipe_${name} STATIC ${ARG_SOURCES})
  target_include_directories(ndpipe_${name} PUBLIC ${CMAKE_SOURCE_DIR}/src)
  target_link_libraries(ndpipe_${name} PUBLIC ${ARG_LINK})
endfunction()

# ndpipe_test(NAME SOURCES ... LINK ...): a GoogleTest program, run by ctest test by test.
function(ndpipe_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;LINK" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  target_compile_definitions(${name} PRIVATE
    NDPIPE_SOURCE_DIR="${CMAKE_SOURCE_DIR}" NDPIPE_PROGRAM="${CMAKE_BINARY_DIR}/ndpipe")
  target_link_libraries(${name} PRIVATE ${ARG_LINK} GTest::gmock GTest::gtest_main)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT})
endfunction()
