#include <fmt/format.h>

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
  NDP_ASSIGN(const auto number,
             store->WithCatalog([&](photo::Catalog& catalog) { return catalog.NumberOf(id); }));
  if (!number) return Fail(ErrorCode::kNotFound, "no photo with this id in " + flags.store);
  NDP_RETURN_IF_ERROR(store->Delete(*number));
  fmt::print("deleted {} (a file that was imported in place is left alone)\n", flags.photo);
  return {};
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
