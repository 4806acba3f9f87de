#include "ndpipe/tuner/request.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "ndpipe/model/backbone.h"
#include "ndpipe/train/tail_trainer.h"

namespace ndpipe::tuner {
namespace {

using nlohmann::json;

constexpr int kMaxRuns = 1000;
constexpr int kMaxStores = 100'000;
constexpr int kMaxEpochs = 100'000;

// Runs `read` on the parsed text; a missing or mistyped field is damage, for we wrote it ourselves.
template <typename T, typename Read>
Result<T> Parse(const std::string& text, const char* what, Read&& read) {
  try {
    return read(json::parse(text));
  } catch (const json::exception& error) {
    return Fail(ErrorCode::kDataLoss,
                fmt::format("{} in jobs.db is damaged: {}", what, error.what()));
  }
}

Status CheckOnLoss(const std::string& on_loss) {
  if (on_loss == "wait" || on_loss == "continue") return {};
  return Fail(ErrorCode::kInvalidArgument,
              fmt::format("on-loss is \"{}\": give \"wait\" or \"continue\"", on_loss));
}

}  // namespace

std::string FormatFinetuneRequest(const rpc::FinetuneRequest& request) {
  return json{{"backbone", request.backbone},
              {"num_runs", request.num_runs},
              {"min_stores", request.min_stores},
              {"recipe", request.recipe},
              {"seed", request.seed},
              {"precision", request.precision},
              {"on_loss", request.on_loss},
              {"relabel", request.relabel},
              {"epochs", request.epochs}}
      .dump();
}

Result<rpc::FinetuneRequest> ParseFinetuneRequest(const std::string& text) {
  return Parse<rpc::FinetuneRequest>(text, "a fine-tune's request", [](const json& value) {
    rpc::FinetuneRequest request;
    value.at("backbone").get_to(request.backbone);
    value.at("num_runs").get_to(request.num_runs);
    value.at("min_stores").get_to(request.min_stores);
    value.at("recipe").get_to(request.recipe);
    value.at("seed").get_to(request.seed);
    value.at("precision").get_to(request.precision);
    value.at("on_loss").get_to(request.on_loss);
    value.at("relabel").get_to(request.relabel);
    value.at("epochs").get_to(request.epochs);
    return request;
  });
}

std::string FormatRelabelOrder(const RelabelOrder& order) {
  return json{{"version", order.request.version},
              {"precision", order.request.precision},
              {"on_loss", order.request.on_loss},
              {"no_switch", order.request.no_switch},
              {"stores", order.stores}}
      .dump();
}

Result<RelabelOrder> ParseRelabelOrder(const std::string& text) {
  return Parse<RelabelOrder>(text, "a relabel's request", [](const json& value) {
    RelabelOrder order;
    value.at("version").get_to(order.request.version);
    value.at("precision").get_to(order.request.precision);
    value.at("on_loss").get_to(order.request.on_loss);
    order.request.no_switch = value.value("no_switch", false);  // records of 0.1 have none
    value.at("stores").get_to(order.stores);
    return order;
  });
}

std::string FormatFinetunePlan(const FinetunePlan& plan) {
  return json{{"backbone", plan.backbone.Hex()},
              {"classes", plan.classes},
              {"num_runs", plan.num_runs},
              {"training_photos", plan.training_photos},
              {"evaluation_photos", plan.evaluation_photos},
              {"evaluation_part", plan.evaluation_part},
              {"stores", plan.stores}}
      .dump();
}

Result<FinetunePlan> ParseFinetunePlan(const std::string& text) {
  std::string backbone;
  auto plan = Parse<FinetunePlan>(text, "a fine-tune's plan", [&](const json& value) {
    FinetunePlan read;
    value.at("backbone").get_to(backbone);
    value.at("classes").get_to(read.classes);
    value.at("num_runs").get_to(read.num_runs);
    value.at("training_photos").get_to(read.training_photos);
    value.at("evaluation_photos").get_to(read.evaluation_photos);
    value.at("evaluation_part").get_to(read.evaluation_part);
    value.at("stores").get_to(read.stores);
    return read;
  });
  if (!plan) return plan;
  NDP_ASSIGN(plan->backbone, Hash256::FromHex(backbone));
  return plan;
}

Status CheckFinetuneRequest(const rpc::FinetuneRequest& request) {
  if (request.num_runs < 1 || request.num_runs > kMaxRuns) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("{} runs are asked for: give 1 to {}", request.num_runs, kMaxRuns));
  }
  if (request.min_stores < 1 || request.min_stores > kMaxStores) {
    return Fail(
        ErrorCode::kInvalidArgument,
        fmt::format("{} PipeStores are asked for: give 1 to {}", request.min_stores, kMaxStores));
  }
  if (request.epochs < 0 || request.epochs > kMaxEpochs) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("{} epochs are asked for: give 1 to {}, or 0 for the recipe's",
                            request.epochs, kMaxEpochs));
  }
  if (auto recipe = train::NamedRecipe(request.recipe); !recipe) {
    return std::unexpected(std::move(recipe).error());
  }
  if (auto precision = model::ParsePrecision(request.precision); !precision) {
    return std::unexpected(std::move(precision).error());
  }
  return CheckOnLoss(request.on_loss);
}

Status CheckRelabelRequest(const rpc::RelabelRequest& request) {
  if (auto precision = model::ParsePrecision(request.precision); !precision) {
    return std::unexpected(std::move(precision).error());
  }
  return CheckOnLoss(request.on_loss);
}

}  // namespace ndpipe::tuner
