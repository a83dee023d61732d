# fogzo_cuda from the unmodified sources of csrc/cuda, as C++ for the host, and the emulator's own tests.
set(FOGZO_CUDA_MODULE_OPTIONS NO_EXTRAS)  # casts alone: nothing to optimise over files
set(FOGZO_HOST_OPTIONS -O1 -ffp-contract=off -Wall -Wextra -Wno-unknown-pragmas)
if(FOGZO_SANITIZE)
  list(APPEND FOGZO_HOST_OPTIONS -fsanitize=${FOGZO_SANITIZE} -fno-sanitize-recover=all -g1 -fno-omit-frame-pointer)
endif()
set_source_files_properties(${FOGZO_CUDA_SOURCES} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-x;c++")
# The matmuls are unrolled: under sanitizers -O1 takes three times as long to compile them.
foreach(kind bfloat16 float32 int8)
  set_source_files_properties(csrc/cuda/probe_matmul_${kind}.cu ${CMAKE_SOURCE_DIR}/csrc/cuda/probe_matmul_${kind}.cu
    PROPERTIES COMPILE_OPTIONS "-x;c++;-Og")
endforeach()
add_library(fogzo_cuda STATIC ${FOGZO_CUDA_SOURCES} tests/cuda_on_host/emulator.cpp)
target_include_directories(fogzo_cuda BEFORE PUBLIC tests/cuda_on_host PUBLIC csrc/include csrc/cuda)
target_compile_options(fogzo_cuda PRIVATE ${FOGZO_HOST_OPTIONS})
target_compile_definitions(fogzo_cuda PRIVATE FOGZO_HAVE_WGMMA)
if(FOGZO_SANITIZE)
  target_link_options(fogzo_cuda PUBLIC -fsanitize=${FOGZO_SANITIZE})
endif()

file(GLOB FOGZO_EMULATOR_TESTS CONFIGURE_DEPENDS tests/cuda_on_host/*_test.cpp)
foreach(source ${FOGZO_EMULATOR_TESTS})
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} ${source})
  target_compile_options(${name} PRIVATE ${FOGZO_HOST_OPTIONS})
  target_link_libraries(${name} PRIVATE fogzo_cuda)
endforeach()
