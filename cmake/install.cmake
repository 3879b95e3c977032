# The library `linnet`, shared and static, from the layers' objects; what `cmake --install` gives.

set(LAYERS linnet_onnx linnet_ops linnet_graph linnet_runtime linnet_train linnet_converter linnet_validate linnet_calibrate linnet_api ${FAST_TARGETS})
list(TRANSFORM LAYERS REPLACE "(.+)" "$<TARGET_OBJECTS:\\1>" OUTPUT_VARIABLE OBJECTS)
set(DEPENDS Threads::Threads PkgConfig::OPENBLAS PkgConfig::LAPACKE PkgConfig::PROTOBUF_C PkgConfig::PCRE2 PkgConfig::JANSSON ${IMAGE_TARGETS} ZLIB::ZLIB ${SLEEF_LIBRARY} m)

add_library(linnet SHARED ${OBJECTS})
add_library(linnet_static STATIC ${OBJECTS})
set_target_properties(linnet PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR} LINKER_LANGUAGE C)
set_target_properties(linnet_static PROPERTIES OUTPUT_NAME linnet LINKER_LANGUAGE C)
# protobuf-c's generated symbols are compiled with default visibility: only the header's functions leave the object.
target_link_options(linnet PRIVATE -Wl,--version-script=${CMAKE_SOURCE_DIR}/cmake/linnet.map)
if(LINNET_COVERAGE)
	target_link_options(linnet PRIVATE --coverage)
endif()
if(NOT LINNET_SANITIZE) # clang leaves the sanitizers' own functions to the program
	target_link_options(linnet PRIVATE -Wl,--no-undefined)
endif()
set_target_properties(linnet PROPERTIES LINK_DEPENDS ${CMAKE_SOURCE_DIR}/cmake/linnet.map)
if(LINNET_SANITIZE)
	target_link_options(linnet PRIVATE -fsanitize=address,undefined)
endif()
target_link_libraries(linnet PRIVATE ${DEPENDS})
target_link_libraries(linnet_static PRIVATE ${DEPENDS})

# Manual pages and completions are printed by the program; its commands are read off their one list.
file(READ cli/main.c text)
string(REGEX MATCHALL "\n\tX\\([a-z]+\\)" COMMANDS "${text}")
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS cli/main.c)
set(PAGES ${CMAKE_BINARY_DIR}/pages)
set(MAN ${PAGES}/linnet.1)
set(PRINT COMMAND linnet_cli --color never help --man > ${PAGES}/linnet.1)
foreach(line ${COMMANDS})
	string(REGEX REPLACE ".*\\((.*)\\)" "\\1" name "${line}")
	list(APPEND MAN ${PAGES}/linnet-${name}.1)
	list(APPEND PRINT COMMAND linnet_cli --color never help --man ${name} > ${PAGES}/linnet-${name}.1)
endforeach()
add_custom_command(
	OUTPUT ${MAN} ${PAGES}/linnet.bash ${PAGES}/_linnet
	COMMAND ${CMAKE_COMMAND} -E make_directory ${PAGES}
	${PRINT}
	COMMAND linnet_cli completion bash > ${PAGES}/linnet.bash
	COMMAND linnet_cli completion zsh > ${PAGES}/_linnet
	DEPENDS linnet_cli
	VERBATIM)
add_custom_target(linnet_pages ALL DEPENDS ${MAN} ${PAGES}/linnet.bash ${PAGES}/_linnet)

# The .pc file finds the prefix from where it lies, so that a moved or staged tree works.
file(RELATIVE_PATH LINNET_PC_UP /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(cmake/linnet.pc.in linnet.pc @ONLY)
configure_file(cmake/linnetConfig.cmake.in linnetConfig.cmake @ONLY)
include(CMakePackageConfigHelpers)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/linnetConfigVersion.cmake COMPATIBILITY SameMinorVersion)

install(TARGETS linnet linnet_static linnet_cli)
install(FILES include/linnet.h TYPE INCLUDE)
install(FILES ${CMAKE_BINARY_DIR}/linnet.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(FILES ${CMAKE_BINARY_DIR}/linnetConfig.cmake ${CMAKE_BINARY_DIR}/linnetConfigVersion.cmake
	DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/linnet)
install(FILES ${MAN} DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES ${PAGES}/linnet.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME linnet)
install(FILES ${PAGES}/_linnet DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
install(FILES LICENSE TYPE DOC)
install(DIRECTORY docs/ TYPE DOC)
