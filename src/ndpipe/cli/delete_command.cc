#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "ndpipe/cli/command.h"
#include "ndpipe/photo/store.h"

namespace ndpipe::cli {
namespace {

struct Flags {
  std::string photo;
  std::string store;
};

Status Run(const Flags& flags) {
  NDP_ASSIGN(const auto id, Hash256::FromHex(flags.photo));
  NDP_ASSIGN(const auto store, photo::PhotoStore::Open(flags.store));
  return store->WithCatalog([&](photo::Catalog& catalog) -> Status {
    NDP_ASSIGN(const auto number, catalog.NumberOf(id));
    if (!number) {
      return Fail(ErrorCode::kNotFound, "no photo with this id in " + flags.store);
    }
    const auto location = catalog.Find(*number);
    NDP_RETURN_IF_ERROR(catalog.Delete(*number));
    const bool is_copy = location && std::filesystem::path(location->path).is_relative();
    if (is_copy) {
      std::error_code error;
      std::filesystem::remove(store->folder() / location->path, error);
      if (error) return FailErrno("cannot remove " + location->path, error.value());
    }
    fmt::print("deleted {}{}\n", flags.photo,
               is_copy ? "" : " from the catalog; its file, imported in place, is left alone");
    return {};
  });
}

}  // namespace

void DeclareDelete(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand(
      "delete", "delete a photo and, on every server, all that was derived from it");
  command->add_option("PHOTO", flags->photo, "the photo's id, 64 hex digits (ndpipe search)")
      ->required();
  AddSetting(*command, "--store", flags->store, "the photo store's folder")->required();
  command->callback([flags, &invocation] { invocation.run = [flags] { return Run(*flags); }; });
}

}  // namespace ndpipe::cli
