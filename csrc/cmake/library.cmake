# libfogzo and, where nvcc is, libfogzo_cuda: the launchers of fogzo/fogzo.h, with what finds them.
include(CMakePackageConfigHelpers)
set(CMAKE_INSTALL_LIBDIR lib CACHE STRING "Folder of the libraries below the prefix")
include(GNUInstallDirs)

# A library of the objects of another target. ARGN: its dependencies, as a linker's options.
function(fogzo_library name export objects)
  add_library(lib${name} $<TARGET_OBJECTS:${objects}>)
  add_library(fogzo::${export} ALIAS lib${name})
  target_include_directories(lib${name} PUBLIC
    $<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/csrc/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  # Before 1.0 a minor release may change a launcher. The folder keeps it apart from the objects' archive.
  set_target_properties(lib${name} PROPERTIES OUTPUT_NAME ${name} EXPORT_NAME ${export} LINKER_LANGUAGE CXX
    VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}
    ARCHIVE_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/lib LIBRARY_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/lib)
  if(BUILD_SHARED_LIBS AND CMAKE_SYSTEM_NAME STREQUAL "Linux")
    set(map ${CMAKE_CURRENT_SOURCE_DIR}/csrc/cmake/exports.map)
    target_link_options(lib${name} PRIVATE -Wl,--version-script=${map})
    set_target_properties(lib${name} PROPERTIES LINK_DEPENDS ${map})
  endif()
  install(TARGETS lib${name} EXPORT fogzo)
  set(FOGZO_PC_NAME ${name})
  set(FOGZO_PC_LIBS "-l${name}")
  if(NOT BUILD_SHARED_LIBS)
    string(JOIN " " FOGZO_PC_LIBS -l${name} ${ARGN})
  endif()
  configure_file(csrc/cmake/fogzo.pc.in ${name}.pc @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/${name}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endfunction()

set(FOGZO_DEPENDS "")
if(OpenMP_CXX_FOUND)
  fogzo_library(fogzo cpu fogzo_cpu -lstdc++ ${OpenMP_CXX_FLAGS} -lm)
  target_link_libraries(libfogzo PRIVATE OpenMP::OpenMP_CXX)
  string(APPEND FOGZO_DEPENDS "  find_dependency(OpenMP COMPONENTS CXX)\n")
else()
  fogzo_library(fogzo cpu fogzo_cpu -lstdc++ -lm)
endif()
if(FOGZO_SANITIZE)
  target_link_options(libfogzo PRIVATE -fsanitize=${FOGZO_SANITIZE})
endif()
if(TARGET fogzo_cuda)
  find_package(CUDAToolkit REQUIRED)
  fogzo_library(fogzo_cuda cuda fogzo_cuda -L${CUDAToolkit_LIBRARY_DIR} -lcudart_static -lstdc++ -ldl -lrt -lpthread)
  target_link_libraries(libfogzo_cuda PRIVATE CUDA::cudart_static)
  string(APPEND FOGZO_DEPENDS "  find_dependency(CUDAToolkit)\n")
endif()
if(BUILD_SHARED_LIBS)
  set(FOGZO_DEPENDS "")
endif()

install(DIRECTORY csrc/include/fogzo DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
set(package ${CMAKE_INSTALL_LIBDIR}/cmake/fogzo)
install(EXPORT fogzo NAMESPACE fogzo:: FILE fogzo-targets.cmake DESTINATION ${package})
configure_package_config_file(csrc/cmake/fogzo-config.cmake.in fogzo-config.cmake INSTALL_DESTINATION ${package}
  NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(fogzo-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/fogzo-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/fogzo-config-version.cmake
  DESTINATION ${package})
