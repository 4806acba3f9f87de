#include "ndpipe/cli/config.h"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <sstream>
#include <string_view>

namespace ndpipe::cli {
namespace {

std::optional<std::string> ConfigFile(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--config" && i + 1 < argc) return argv[i + 1];
    if (argument.starts_with("--config=")) return std::string(argument.substr(9));
  }
  const char* named = std::getenv("NDPIPE_CONFIG");
  if (named == nullptr || *named == '\0') return std::nullopt;
  return named;
}

std::optional<std::string> AsText(const toml::node& node) {
  if (const auto* text = node.as_string()) return text->get();
  if (const auto* number = node.as_integer()) return std::to_string(number->get());
  if (const auto* real = node.as_floating_point()) return fmt::format("{}", real->get());
  if (const auto* flag = node.as_boolean()) return flag->get() ? "true" : "false";
  return std::nullopt;
}

// True when the command has such an option. A value that the option refuses throws CLI::Error.
bool SetDefault(CLI::App& command, std::string key, const std::string& value) {
  std::replace(key.begin(), key.end(), '_', '-');
  for (CLI::Option* option : command.get_options()) {
    std::string name = option->get_single_name();
    std::replace(name.begin(), name.end(), '_', '-');
    if (name != key) continue;
    option->default_val(value);
    option->required(false);
    return true;
  }
  return false;
}

Status Apply(CLI::App& app, std::string_view key, const toml::node& node) {
  const std::string name(key);
  if (const auto* section = node.as_table()) {
    CLI::App* command = nullptr;
    for (CLI::App* candidate : app.get_subcommands(nullptr)) {
      if (candidate->get_name() == name) command = candidate;
    }
    if (command == nullptr) {
      return Fail(ErrorCode::kInvalidArgument, fmt::format("[{}] names no command", name));
    }
    for (const auto& [option, value] : *section) {
      const auto text = AsText(value);
      if (!text || !SetDefault(*command, std::string(option.str()), *text)) {
        return Fail(ErrorCode::kInvalidArgument,
                    fmt::format("[{}] has no setting '{}'", name, option.str()));
      }
    }
    return {};
  }
  const auto text = AsText(node);
  bool used = text && SetDefault(app, name, *text);
  for (CLI::App* command : app.get_subcommands(nullptr)) {
    used = (text && SetDefault(*command, name, *text)) || used;
  }
  if (!used) return Fail(ErrorCode::kInvalidArgument, fmt::format("unknown setting '{}'", name));
  return {};
}

}  // namespace

Status ApplyConfigFile(CLI::App& app, int argc, char** argv) {
  const auto file = ConfigFile(argc, argv);
  if (!file) return {};
  try {
    const toml::table table = toml::parse_file(*file);
    for (const auto& [key, node] : table) {
      if (auto applied = Apply(app, key.str(), node); !applied) {
        return std::unexpected(std::move(applied).error().Within("configuration file " + *file));
      }
    }
  } catch (const toml::parse_error& error) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("configuration file {}, line {}: {}", *file, error.source().begin.line,
                            error.description()));
  } catch (const CLI::Error& error) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("configuration file {}: {}", *file, error.what()));
  }
  return {};
}

}  // namespace ndpipe::cli
