// The configuration file: TOML, the weakest of the three sources (flags over environment over
// file).
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "ndpipe/base/result.h"

namespace ndpipe::cli {

// Reads the file (of --config in the arguments, else NDPIPE_CONFIG, else none) and makes its values
// the defaults of the commands' options: top-level keys for every command that has the option, keys
// of [COMMAND] for that one. Keys are option names, "-" and "_" alike. kInvalidArgument for TOML
// errors (with line), unknown keys and wrong types.
Status ApplyConfigFile(CLI::App& app, int argc, char** argv);

}  // namespace ndpipe::cli
