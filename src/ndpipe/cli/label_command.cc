#include <fmt/format.h>

#include <memory>

#include "ndpipe/cli/output.h"
#include "ndpipe/cli/remote.h"

namespace ndpipe::cli {
namespace {

struct Flags {
  RemoteFlags remote;
  std::string photo;
  std::string label;
  bool take_back = false;
};

Status Run(const Flags& flags) {
  if (flags.label.empty() != flags.take_back) {
    return Fail(ErrorCode::kInvalidArgument, "give a LABEL, or --take-back and no label");
  }
  NDP_ASSIGN(const auto tuner, Connect(flags.remote));
  NDP_RETURN_IF_ERROR(tuner->SetUserLabel(flags.photo, flags.label));
  if (flags.remote.json) {
    PrintJson(
        {{"photo", flags.photo}, {"label", flags.take_back ? Json(nullptr) : Json(flags.label)}});
  } else if (flags.take_back) {
    fmt::print("{}: your label is taken back\n", flags.photo);
  } else {
    fmt::print("{}: labelled '{}' by you; the next fine-tune learns from it\n", flags.photo,
               flags.label);
  }
  return {};
}

}  // namespace

void DeclareLabel(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand("label", "correct a photo's label");
  DeclareRemoteFlags(*command, flags->remote);
  command->add_option("PHOTO", flags->photo, "the photo's id, 64 hex digits (ndpipe search)")
      ->required();
  command->add_option("LABEL", flags->label, "the right label");
  command->add_flag("--take-back", flags->take_back, "drop your label of this photo");
  command->callback([flags, &invocation] { invocation.run = [flags] { return Run(*flags); }; });
}

}  // namespace ndpipe::cli
