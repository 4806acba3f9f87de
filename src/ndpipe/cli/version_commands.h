// What operators do with model versions: the commands below `ndpipe models`.
#pragma once

#include <memory>

#include "ndpipe/cli/command.h"
#include "ndpipe/cli/remote.h"

namespace ndpipe::cli {

// serve, rollback, compare and export.
void DeclareVersionCommands(CLI::App& models, const std::shared_ptr<const RemoteFlags>& remote,
                            Invocation& invocation);

}  // namespace ndpipe::cli
