# Finds the Python to embed and everything about it by asking its interpreter. Sets
#
#   EP_PYTHON_CONFIG       the python3.x-config used
#   EP_PYTHON_VERSION      3.13.0
#   EP_PYTHON_BUILD        version, flavour and compiler in one line: what tells two builds apart
#   EP_PYTHON_EXECUTABLE   the interpreter of that installation
#   EP_PYTHON_INCLUDES     folders of Python.h and pyconfig.h
#   EP_PYTHON_LIBRARY      full path of the shared libpython
#   EP_PYTHON_DLOPEN       what dlopen(3) finds it by: the bare name in a standard place
#   EP_PYTHON_RPATH        its folder, empty in a standard place
#
# Nothing is cached but the choice itself, so another choice cannot leave anything behind.

if(NOT "$ENV{PYTHON_CONFIG}" STREQUAL "")
    set(wanted "$ENV{PYTHON_CONFIG}")
elseif(PYTHON_CONFIG)
    set(wanted "${PYTHON_CONFIG}")
else()
    set(wanted python3-config)
endif()
find_program(EP_PYTHON_CONFIG "${wanted}" NO_CACHE)
if(NOT EP_PYTHON_CONFIG)
    message(FATAL_ERROR "${wanted} not found: set PYTHON_CONFIG to the python3.x-config of the "
        "Python to embed, or install one (Debian: python3-dev; any other: bin/python 3.13)")
endif()

function(ask_python_config option result)
    execute_process(COMMAND "${EP_PYTHON_CONFIG}" ${option}
        OUTPUT_VARIABLE answer RESULT_VARIABLE status OUTPUT_STRIP_TRAILING_WHITESPACE)
    if(NOT status EQUAL 0)
        message(FATAL_ERROR "${EP_PYTHON_CONFIG} ${option} failed")
    endif()
    set(${result} "${answer}" PARENT_SCOPE)
endfunction()

ask_python_config(--includes includes)
ask_python_config(--exec-prefix exec_prefix)
if(NOT includes MATCHES "/(python3\\.[0-9]+[a-z]*)( |$)")
    message(FATAL_ERROR "${EP_PYTHON_CONFIG} is not the config script of a Python 3: it says ${includes}")
endif()
set(EP_PYTHON_EXECUTABLE "${exec_prefix}/bin/${CMAKE_MATCH_1}")
if(NOT EXISTS "${EP_PYTHON_EXECUTABLE}")
    message(FATAL_ERROR "${EP_PYTHON_CONFIG} has no interpreter ${EP_PYTHON_EXECUTABLE}")
endif()

set(question [=[
import platform, sys, sysconfig
var = sysconfig.get_config_var
framework = var("PYTHONFRAMEWORKPREFIX")
print(platform.python_version())
print(sys.version.replace("\n", " "), var("LDVERSION"), sys.platform)
print(sysconfig.get_path("include"), sysconfig.get_path("platinclude"), sep=";")
print(";".join(f"{folder}/{name}" for folder in (framework, var("LIBDIR"), sys.exec_prefix + "/lib")
               for name in (var("INSTSONAME"), var("LDLIBRARY")) if folder and name))
]=])
execute_process(COMMAND "${EP_PYTHON_EXECUTABLE}" -I -c "${question}"
    OUTPUT_VARIABLE answer RESULT_VARIABLE status)
if(NOT status EQUAL 0 OR NOT answer MATCHES "^([^\n]*)\n([^\n]*)\n([^\n]*)\n([^\n]*)\n")
    message(FATAL_ERROR "${EP_PYTHON_EXECUTABLE} does not run")
endif()
set(EP_PYTHON_VERSION "${CMAKE_MATCH_1}")
set(EP_PYTHON_BUILD "${CMAKE_MATCH_2}")
set(EP_PYTHON_INCLUDES "${CMAKE_MATCH_3}")
set(candidates "${CMAKE_MATCH_4}")

if(EP_PYTHON_VERSION VERSION_LESS 3.9)
    message(FATAL_ERROR "${EP_PYTHON_CONFIG} is Python ${EP_PYTHON_VERSION}; 3.9 is the oldest that works")
endif()
list(REMOVE_DUPLICATES EP_PYTHON_INCLUDES)
list(GET EP_PYTHON_INCLUDES 0 include)
if(NOT EXISTS "${include}/Python.h")
    message(FATAL_ERROR "${include}/Python.h is missing: install this Python's headers (Debian: python3-dev)")
endif()

set(EP_PYTHON_LIBRARY "")
foreach(candidate IN LISTS candidates)
    if(NOT EP_PYTHON_LIBRARY AND EXISTS "${candidate}" AND NOT candidate MATCHES "\\.a$")
        set(EP_PYTHON_LIBRARY "${candidate}")
    endif()
endforeach()
if(NOT EP_PYTHON_LIBRARY)
    message(FATAL_ERROR "Python ${EP_PYTHON_VERSION} (${EP_PYTHON_CONFIG}) has no shared library "
        "(looked for ${candidates}). Only a Python built with --enable-shared can be embedded: "
        "choose another with PYTHON_CONFIG; bin/python 3.13 finds or builds one.")
endif()

get_filename_component(EP_PYTHON_RPATH "${EP_PYTHON_LIBRARY}" DIRECTORY)
get_filename_component(name "${EP_PYTHON_LIBRARY}" NAME)
if(EP_PYTHON_RPATH IN_LIST CMAKE_C_IMPLICIT_LINK_DIRECTORIES AND EP_PYTHON_RPATH MATCHES "^/(usr/)?lib")
    set(EP_PYTHON_RPATH "")
    set(EP_PYTHON_DLOPEN "${name}")
else()
    set(EP_PYTHON_DLOPEN "${EP_PYTHON_LIBRARY}")
endif()

# Only a choice that works is remembered.
if(NOT "$ENV{PYTHON_CONFIG}" STREQUAL "")
    set(PYTHON_CONFIG "${wanted}" CACHE STRING "" FORCE)
endif()
